// Counts counts the values of the topic words, exactly once, and tells each count with its word in the topic counts.
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

public class Counts {
  public static void main(String[] args) {
    Properties p = new Properties();
    p.put("application.id", "counts");
    p.put("bootstrap.servers", args[0]);
    p.put("state.dir", args[1]);
    p.put("processing.guarantee", "exactly_once_v2");
    p.put("replication.factor", "3");
    p.put("commit.interval.ms", "100");
    p.put("statestore.cache.max.bytes", "0");
    p.put("auto.offset.reset", "earliest");
    p.put("session.timeout.ms", "10000");
    StreamsBuilder b = new StreamsBuilder();
    b.stream("words", Consumed.with(Serdes.String(), Serdes.String()))
        .groupBy((k, v) -> v, Grouped.with(Serdes.String(), Serdes.String()))
        .count(Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("counts")).withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()))
        .toStream().map((k, v) -> KeyValue.pair(k, k + "=" + v)).to("counts", Produced.with(Serdes.String(), Serdes.String()));
    KafkaStreams s = new KafkaStreams(b.build(), p);
    s.setStateListener((now, before) -> System.out.println("{\"name\":\"state\",\"value\":\"" + now + "\"}"));
    Runtime.getRuntime().addShutdownHook(new Thread(() -> s.close(Duration.ofSeconds(20))));
    s.start();
  }
}
