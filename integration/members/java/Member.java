import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;

/** A member of a consumer group, made of the Java client; see the Go package members. */
public class Member implements ConsumerRebalanceListener {
    static final Map<String, Class<?>> ASSIGNORS = Map.of("range", RangeAssignor.class, "round-robin", RoundRobinAssignor.class,
            "sticky", StickyAssignor.class, "cooperative-sticky", CooperativeStickyAssignor.class);
    static volatile boolean running = true;

    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        p.put("group.id", args[1]);
        p.put("session.timeout.ms", args[3]);
        p.put("heartbeat.interval.ms", String.valueOf(Integer.parseInt(args[3]) / 10));
        p.put("partition.assignment.strategy", ASSIGNORS.get(args[4]).getName());
        if (!args[5].equals("-")) {
            p.put("group.instance.id", args[5]);
        }
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "earliest");
        p.put("fetch.max.wait.ms", "200");
        p.put("max.poll.records", "100");
        p.put("metadata.max.age.ms", "5000");
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer());
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            running = false;
            consumer.wakeup();
            try {
                main.join(20000);
            } catch (InterruptedException e) {
                // the process ends anyway
            }
        }));
        consumer.subscribe(List.of(args[2]), new Member());
        while (running) {
            try {
                handle(consumer);
            } catch (WakeupException e) {
                // to stop
            } catch (KafkaException e) {
                System.out.println("error " + e);
            }
        }
        consumer.close(Duration.ofSeconds(10));
    }

    static void handle(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
        for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
            System.out.println("handled " + r.partition() + " " + r.offset() + " " + r.value());
            next.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1, r.leaderEpoch(), ""));
        }
        if (next.isEmpty()) {
            return;
        }
        consumer.commitSync(next);
        next.forEach((tp, o) -> System.out.println("committed " + tp.partition() + " " + o.offset()));
    }

    static void say(String what, Collection<TopicPartition> partitions) {
        TreeSet<Integer> sorted = new TreeSet<>();
        partitions.forEach(tp -> sorted.add(tp.partition()));
        StringBuilder line = new StringBuilder(what);
        sorted.forEach(p -> line.append(' ').append(p));
        System.out.println(line);
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        say("assigned", partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        say("revoked", partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        say("lost", partitions);
    }
}
