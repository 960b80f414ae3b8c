package scrape

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"ottla/broker/partition"
)

// Family is one metric: what it is called, and how it is read off a Picture.
type Family struct {
	Name, Kind, Help string
	write            func(*Text, *Picture)
}

const (
	gauge   = "gauge"
	counter = "counter"
)

// Prefixes of Kafka's names.
const (
	replicaManager = "kafka_server_replicamanager_"
	topicMetrics   = "kafka_server_brokertopicmetrics_"
	requestMetrics = "kafka_network_requestmetrics_"
	ofPartition    = "kafka_cluster_partition_"
	ofLog          = "kafka_log_log_"
	ofSockets      = "kafka_server_socket_server_metrics_"
	ofSession      = "kafka_server_sessionexpirelistener_"
	exported       = "kafka_topic_partition_"
	exportedGroup  = "kafka_consumergroup_"
)

// Families are the metrics that are read off a Picture, in the order of the text.
func Families() []Family {
	return slices.Concat([]Family{
		{"kafka_server_kafkaserver_brokerstate", gauge, "1 starting, 2 recovering logs, 3 running, 6 leaving the cluster, 7 shutting down.", one(func(p *Picture) float64 { return float64(p.BrokerState) })},
		{"ottla_build_info", gauge, "1, with the version of the program.", func(t *Text, p *Picture) { t.Sample(Labels("version", p.Version), 1) }},

		{replicaManager + "partitioncount", gauge, "Partitions hosted by this broker.", one(func(p *Picture) float64 { return float64(len(p.Partitions)) })},
		{replicaManager + "leadercount", gauge, "Partitions that this broker leads.", counted((*PartitionPicture).leads)},
		{replicaManager + "underreplicatedpartitions", gauge, "Partitions led here of which a replica is out of sync.", counted((*PartitionPicture).underReplicated)},
		{replicaManager + "underminisrpartitioncount", gauge, "Partitions led here with fewer in-sync replicas than min.insync.replicas.", counted((*PartitionPicture).underMinISR)},
		{replicaManager + "atminisrpartitioncount", gauge, "Partitions led here with just min.insync.replicas in-sync replicas.", counted((*PartitionPicture).atMinISR)},
		{replicaManager + "offlinereplicacount", gauge, "Replicas here whose log directory or log has failed.", counted((*PartitionPicture).offline)},
		{replicaManager + "reassigningpartitions", gauge, "Partitions led here whose replicas are being reassigned.", counted((*PartitionPicture).reassigning)},
		{replicaManager + "isrshrinks_total", counter, "In-sync sets that lost a member.", one(func(p *Picture) float64 { return float64(p.Shrinks) })},
		{replicaManager + "isrexpands_total", counter, "In-sync sets that won a member.", one(func(p *Picture) float64 { return float64(p.Expands) })},
		{replicaManager + "failedisrupdates_total", counter, "Changes of in-sync sets that the controller refused.", one(func(p *Picture) float64 { return float64(p.FailedUpdates) })},
		{"kafka_server_replicafetchermanager_maxlag", gauge, "Most offsets that a replica here is behind its leader's high watermark.", labelled(`clientId="Replica"`, maxLag)},
		{"kafka_server_replicafetchermanager_failedpartitionscount", gauge, "Partitions that are not replicated until the controller's next decision.", labelled(`clientId="Replica"`, func(p *Picture) float64 { return float64(p.FailedFetchers) })},
		{"ottla_fetchers", gauge, "Goroutines that replicate from other brokers.", one(func(p *Picture) float64 { return float64(p.Fetchers) })},
		{"ottla_fetcher_paused_partitions", gauge, "Partitions whose replication rests after an error.", one(func(p *Picture) float64 { return float64(p.PausedFetchers) })},

		{topicMetrics + "bytesin_total", counter, "Bytes of records from clients.", byTopic(func(t *partition.TrafficCounts) int64 { return t.BytesIn })},
		{topicMetrics + "bytesout_total", counter, "Bytes of records to consumers.", byTopic(func(t *partition.TrafficCounts) int64 { return t.BytesOut })},
		{topicMetrics + "messagesin_total", counter, "Records from clients.", byTopic(func(t *partition.TrafficCounts) int64 { return t.MessagesIn })},
		{topicMetrics + "totalproducerequests_total", counter, "Partitions of the topic in Produce requests.", byTopic(func(t *partition.TrafficCounts) int64 { return t.ProduceRequests })},
		{topicMetrics + "totalfetchrequests_total", counter, "Partitions of the topic that fetches looked at; one that brings no news in a fetch session is not looked at.", byTopic(func(t *partition.TrafficCounts) int64 { return t.FetchRequests })},
		{topicMetrics + "failedproducerequests_total", counter, "Partitions in Produce requests that were refused, but for errors that clients settle by themselves.", byTopic(func(t *partition.TrafficCounts) int64 { return t.FailedProduces })},
		{topicMetrics + "failedfetchrequests_total", counter, "Partitions in fetches that failed, but for errors that clients settle by themselves.", byTopic(func(t *partition.TrafficCounts) int64 { return t.FailedFetches })},
		{topicMetrics + "bytesrejected_total", counter, "Bytes of records that were refused as too large.", byTopic(func(t *partition.TrafficCounts) int64 { return t.BytesRejected })},
		{topicMetrics + "replicationbytesin_total", counter, "Bytes of records fetched from leaders.", byTopic(func(t *partition.TrafficCounts) int64 { return t.ReplicationBytesIn })},
		{topicMetrics + "replicationbytesout_total", counter, "Bytes of records given to followers.", byTopic(func(t *partition.TrafficCounts) int64 { return t.ReplicationBytesOut })},

		{requestMetrics + "requests_total", counter, "Requests.", requestCounts},
		{requestMetrics + "errors_total", counter, "Error codes in answers, NONE among them.", requestErrors},
		{requestMetrics + "requestbytes_total", counter, "Bytes of requests.", byAPI(func(a *APIPicture) float64 { return float64(a.InBytes) })},
		{requestMetrics + "responsebytes_total", counter, "Bytes of answers.", byAPI(func(a *APIPicture) float64 { return float64(a.OutBytes) })},
	},
		requestTimes("totaltimems", "Time from the arrival of a request to its answer", func(a *APIPicture) *Summary { return &a.Total }),
		requestTimes("localtimems", "Time in which a request was worked on", func(a *APIPicture) *Summary { return &a.Local }),
		requestTimes("remotetimems", "Time in which a request waited for others: replicas, records, members", func(a *APIPicture) *Summary { return &a.Remote }),
		requestTimes("responsesendtimems", "Time until the socket had taken the answer, the wait for answers to earlier requests included", func(a *APIPicture) *Summary { return &a.Send }),
		[]Family{
			{"kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent", gauge, "Share of the processors' time that the process leaves unused, 0 to 1; there is no pool of handlers.", one(func(p *Picture) float64 { return p.Idle })},
			{"kafka_network_socketserver_networkprocessoravgidle_percent", gauge, "The same: whoever reads a request works on it.", one(func(p *Picture) float64 { return p.Idle })},
			{ofSockets + "connection_count", gauge, "Open connections.", connections},
			{ofSockets + "connection_creation_total", counter, "Accepted connections.", one(func(p *Picture) float64 { return float64(p.Opened) })},
			{ofSockets + "connection_close_total", counter, "Closed connections.", one(func(p *Picture) float64 { return float64(p.Closed) })},
			{ofSockets + "successful_authentication_total", counter, "Logins, and TLS handshakes where TLS alone is asked for.", byListener(func(c LoginCounts) int64 { return c.Done })},
			{ofSockets + "failed_authentication_total", counter, "Logins and TLS handshakes that failed.", byListener(func(c LoginCounts) int64 { return c.Failed })},
			{ofSockets + "successful_reauthentication_total", counter, "Logins on connections that had been logged in before.", byListener(func(c LoginCounts) int64 { return c.AgainDone })},
			{ofSockets + "failed_reauthentication_total", counter, "Such logins that failed.", byListener(func(c LoginCounts) int64 { return c.AgainFailed })},
			{"ottla_refused_requests_total", counter, "Frames that were answered by closing the connection.", one(func(p *Picture) float64 { return float64(p.RefusedRequests) })},
			{"kafka_server_fetchsessioncache_numincrementalfetchsessions", gauge, "Fetch sessions.", one(func(p *Picture) float64 { return float64(p.FetchSessions) })},

			{"kafka_log_logmanager_offlinelogdirectorycount", gauge, "Log directories that have failed.", one(offlineDirs)},
			{"ottla_log_directory_bytes", gauge, "Bytes of all segments in a log directory.", byDir(func(d *LogDirPicture) float64 { return float64(d.Size) })},
			{"ottla_log_directory_partitions", gauge, "Partitions in a log directory.", byDir(func(d *LogDirPicture) float64 { return float64(d.Partitions) })},
			{"ottla_log_directory_offline", gauge, "1 for a log directory that has failed.", byDir(func(d *LogDirPicture) float64 { return number(d.Offline) })},
			{"ottla_log_directory_in_reserve", gauge, "1 for a log directory on a disk with less free space than ottla.disk.reserve.percent: clients' writes are refused.", byDir(func(d *LogDirPicture) float64 { return number(d.Reserve) })},
			{"ottla_cleaner_runs_total", counter, "Logs that were compacted.", byCleaner(func(c *CleanerPicture) float64 { return float64(c.Runs) })},
			{"ottla_cleaner_read_bytes_total", counter, "Bytes read by compaction.", byCleaner(func(c *CleanerPicture) float64 { return float64(c.BytesRead) })},
			{"ottla_cleaner_written_bytes_total", counter, "Bytes written by compaction.", byCleaner(func(c *CleanerPicture) float64 { return float64(c.BytesWritten) })},
			{"ottla_cleaner_last_run_seconds", gauge, "Time that the last compaction of a log took.", byCleaner(func(c *CleanerPicture) float64 { return c.LastRun.Seconds() })},

			{"kafka_server_zookeeperclientmetrics_zookeeperrequestlatencyms", gauge, "Time of requests to ZooKeeper in ms, of the last minute or two.", func(t *Text, p *Picture) { quantiles(t, "", &p.Session.Latency) }},
			{"kafka_server_zookeeperclientmetrics_zookeeperrequestlatencyms_count", counter, "Requests to ZooKeeper.", one(func(p *Picture) float64 { return float64(p.Session.Latency.Count) })},
			{ofSession + "zookeeperdisconnects_total", counter, "Lost connections to ZooKeeper.", one(func(p *Picture) float64 { return float64(p.Session.Disconnects) })},
			{ofSession + "zookeepersyncconnects_total", counter, "Connections to ZooKeeper that were made again.", one(func(p *Picture) float64 { return float64(p.Session.SyncConnects) })},
			{ofSession + "zookeeperexpires_total", counter, "Sessions with ZooKeeper that ended.", one(func(p *Picture) float64 { return float64(p.Session.Expires) })},
			{"ottla_zookeeper_session_state", gauge, "0 no session, 1 session without connection, 2 connected, 3 connected and registered.", one(func(p *Picture) float64 { return float64(p.Session.State()) })},
			{"ottla_zookeeper_lease_remaining_seconds", gauge, "How long the session lives at least, even if ZooKeeper is never reached again; at 0 this broker stops answering for what it leads.", one(func(p *Picture) float64 { return p.Session.LeaseRemaining.Seconds() })},
			{"ottla_zookeeper_lease_seconds", gauge, "Length of a fresh lease.", one(func(p *Picture) float64 { return p.Session.LeaseLength.Seconds() })},
			{"ottla_broker_epoch", gauge, "Epoch of this broker's registration, -1 without one.", one(func(p *Picture) float64 { return float64(p.Session.BrokerEpoch) })},
			{"ottla_metadata_brokers", gauge, "Registered brokers, as this broker was last told.", one(func(p *Picture) float64 { return float64(p.MetadataBrokers) })},
			{"ottla_metadata_partitions", gauge, "Partitions in the cluster, as this broker was last told.", one(func(p *Picture) float64 { return float64(p.MetadataPartitions) })},

			{"kafka_brokers", gauge, "Registered brokers; told by the controller.", byCluster(func(t *Text, c *ClusterPicture) { t.Sample("", float64(len(c.Brokers))) })},
			{"kafka_broker_info", gauge, "1 for each registered broker; told by the controller.", byCluster(brokerInfo)},
			{"kafka_topic_partitions", gauge, "Partitions of a topic; told by the controller.", byCluster(topicPartitions)},

			{"kafka_coordinator_group_groupmetadatamanager_numgroups", gauge, "Groups that this broker coordinates.", one(func(p *Picture) float64 { return float64(len(p.Groups)) })},
			{"kafka_coordinator_group_groupmetadatamanager_numoffsets", gauge, "Committed offsets that this broker keeps.", one(func(p *Picture) float64 { return float64(p.offsets()) })},
			{"ottla_transactional_ids", gauge, "Transactional ids that this broker coordinates, by state.", transactionalIDsByState},
			{"kafka_coordinator_transaction_transactionmarkerchannelmanager_unknowndestinationqueuesize", gauge, "Partitions without a leader that wait for a transaction's marker.", one(func(p *Picture) float64 { return float64(p.MarkersWaiting) })},
			{"ottla_group_states", gauge, "Groups that this broker coordinates, by state.", groupsByState},
			{"ottla_group_generation", gauge, "Generation of a group: its rebalances so far.", byGroup(func(g *GroupPicture) float64 { return float64(g.Generation) })},
			{exportedGroup + "members", gauge, "Members of a group; told by its coordinator.", byGroup(func(g *GroupPicture) float64 { return float64(g.Members) })},
			{exportedGroup + "current_offset", gauge, "Committed offset.", byOffset(func(o *OffsetPicture) (int64, bool) { return o.Offset, true })},
			{exportedGroup + "lag", gauge, "Offsets between the committed one and the high watermark.", byOffset(func(o *OffsetPicture) (int64, bool) { return o.Lag, o.Lag >= 0 && !o.InZooKeeper })},
			{"kafka_consumergroupzookeeper_lag_zookeeper", gauge, "The same of offsets that are kept in ZooKeeper.", byOffset(func(o *OffsetPicture) (int64, bool) { return o.Lag, o.Lag >= 0 && o.InZooKeeper })},
			{exportedGroup + "current_offset_sum", gauge, "Sum of the committed offsets of a topic.", byGroupTopic(func(o *OffsetPicture) int64 { return o.Offset })},
			{exportedGroup + "lag_sum", gauge, "Sum of the lags of a topic.", byGroupTopic(func(o *OffsetPicture) int64 { return max(0, o.Lag) })},
			{"ottla_lag_series_left_out", gauge, "Partitions of groups that are not told one by one, because of ottla.metrics.lag.series.", one(func(p *Picture) float64 { return float64(max(0, p.offsets()-p.LagSeries)) })},

			{exported + "current_offset", gauge, "High watermark; these are told by the partition's leader.", byLed(func(p *PartitionPicture) float64 { return float64(p.HighWatermark) })},
			{exported + "oldest_offset", gauge, "First offset.", byLed(func(p *PartitionPicture) float64 { return float64(p.LogStart) })},
			{exported + "in_sync_replica", gauge, "In-sync replicas.", byLedOrLost(func(p *PartitionPicture) float64 { return float64(p.ISR) })},
			{exported + "replicas", gauge, "Replicas.", byLedOrLost(func(p *PartitionPicture) float64 { return float64(p.Replicas) })},
			{exported + "leader", gauge, "Id of the leader, -1 without one.", byLedOrLost(func(p *PartitionPicture) float64 { return float64(p.Leader) })},
			{exported + "leader_is_preferred", gauge, "1 if the first replica leads.", byLedOrLost(func(p *PartitionPicture) float64 { return number(p.Preferred) })},
			{exported + "under_replicated_partition", gauge, "1 if a replica is out of sync.", byLedOrLost(func(p *PartitionPicture) float64 { return number(p.ISR < p.Replicas) })},

			{ofPartition + "underreplicated", gauge, "1 for a partition led here of which a replica is out of sync.", byPartition(func(p *PartitionPicture) float64 { return number(p.underReplicated()) })},
			{ofPartition + "underminisr", gauge, "1 for a partition led here with fewer in-sync replicas than min.insync.replicas.", byPartition(func(p *PartitionPicture) float64 { return number(p.underMinISR()) })},
			{ofPartition + "atminisr", gauge, "1 for a partition led here with just min.insync.replicas in-sync replicas.", byPartition(func(p *PartitionPicture) float64 { return number(p.atMinISR()) })},
			{ofPartition + "insyncreplicascount", gauge, "In-sync replicas of a partition led here, else 0.", byPartition(func(p *PartitionPicture) float64 { return float64(p.ISR) })},
			{ofPartition + "replicascount", gauge, "Replicas of a partition led here, else 0.", byPartition(replicasCount)},
			{ofLog + "size", gauge, "Bytes of the segments.", byPartition(func(p *PartitionPicture) float64 { return float64(p.Size) })},
			{ofLog + "logstartoffset", gauge, "First offset.", byPartition(func(p *PartitionPicture) float64 { return float64(p.LogStart) })},
			{ofLog + "logendoffset", gauge, "Next offset.", byPartition(func(p *PartitionPicture) float64 { return float64(p.LogEnd) })},
			{ofLog + "numlogsegments", gauge, "Segments.", byPartition(func(p *PartitionPicture) float64 { return float64(p.Segments) })},
			{"kafka_server_fetcherlagmetrics_consumerlag", gauge, "Offsets that the replica here is behind its leader's high watermark.", followerLag},
		})
}

// Write writes the picture as text.
func (p *Picture) Write(out io.Writer) error {
	t := NewText(out)
	for _, f := range Families() {
		t.Family(f.Name, f.Kind, f.Help)
		f.write(t, p)
	}
	return t.Flush()
}

// ---- how a metric is read off a Picture

func one(of func(*Picture) float64) func(*Text, *Picture) { return labelled("", of) }

func labelled(labels string, of func(*Picture) float64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) { t.Sample(labels, of(p)) }
}

func counted(is func(*PartitionPicture) bool) func(*Text, *Picture) {
	return one(func(p *Picture) float64 { return p.count(is) })
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func maxLag(p *Picture) float64 {
	most := int64(0)
	for i := range p.Partitions {
		if q := &p.Partitions[i]; q.Follows {
			most = max(most, q.Lag)
		}
	}
	return float64(most)
}

func offlineDirs(p *Picture) float64 {
	n := 0
	for i := range p.LogDirs {
		if p.LogDirs[i].Offline {
			n++
		}
	}
	return float64(n)
}

// byTopic tells the broker's total without a label, and each topic with its own.
func byTopic(of func(*partition.TrafficCounts) int64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		t.Sample("", float64(of(&p.AllTopics)))
		for i := range p.Topics {
			t.Sample(`topic="`+p.Topics[i].Topic+`"`, float64(of(&p.Topics[i])))
		}
	}
}

func byAPI(of func(*APIPicture) float64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		for i := range p.APIs {
			t.Sample(`request="`+p.APIs[i].Name+`"`, of(&p.APIs[i]))
		}
	}
}

func requestCounts(t *Text, p *Picture) {
	for i := range p.APIs {
		a := &p.APIs[i]
		for _, v := range slices.Sorted(maps.Keys(a.Versions)) {
			t.Sample(Labels("request", a.Name, "version", strconv.Itoa(v)), float64(a.Versions[v]))
		}
	}
}

func requestErrors(t *Text, p *Picture) {
	for i := range p.APIs {
		a := &p.APIs[i]
		for _, e := range slices.Sorted(maps.Keys(a.Errors)) {
			t.Sample(Labels("request", a.Name, "error", e), float64(a.Errors[e]))
		}
	}
}

// requestTimes are the three metrics that tell of one time of requests.
func requestTimes(name, help string, of func(*APIPicture) *Summary) []Family {
	name = requestMetrics + name
	return []Family{
		{name, gauge, help + ", in ms, of the last minute or two.", func(t *Text, p *Picture) {
			for i := range p.APIs {
				quantiles(t, `request="`+p.APIs[i].Name+`",`, of(&p.APIs[i]))
			}
		}},
		{name + "_count", counter, help + ": how often.", byAPI(func(a *APIPicture) float64 { return float64(of(a).Count) })},
		{name + "_sum", counter, help + ": sum in ms.", byAPI(func(a *APIPicture) float64 { return milliseconds(of(a).Sum) })},
	}
}

func quantiles(t *Text, labels string, s *Summary) {
	for i, q := range Quantiles {
		t.Sample(labels+`quantile="`+q.Label+`"`, milliseconds(s.Quantiles[i]))
	}
}

func connections(t *Text, p *Picture) {
	for _, l := range slices.Sorted(maps.Keys(p.ConnectionsByListener)) {
		t.Sample(Labels("listener", l), float64(p.ConnectionsByListener[l]))
	}
}

func byDir(of func(*LogDirPicture) float64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		for i := range p.LogDirs {
			t.Sample(Labels("dir", p.LogDirs[i].Path), of(&p.LogDirs[i]))
		}
	}
}

func byCleaner(of func(*CleanerPicture) float64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		if p.Cleaner != nil {
			t.Sample("", of(p.Cleaner))
		}
	}
}

func byCluster(write func(*Text, *ClusterPicture)) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		if p.Cluster != nil {
			write(t, p.Cluster)
		}
	}
}

func brokerInfo(t *Text, c *ClusterPicture) {
	for _, b := range c.Brokers {
		t.Sample(Labels("address", b.Address, "id", strconv.Itoa(int(b.ID))), 1)
	}
}

func topicPartitions(t *Text, c *ClusterPicture) {
	for _, topic := range slices.Sorted(maps.Keys(c.Topics)) {
		t.Sample(Labels("topic", topic), float64(c.Topics[topic]))
	}
}

func transactionalIDsByState(t *Text, p *Picture) {
	for _, state := range slices.Sorted(maps.Keys(p.TransactionalIDs)) {
		t.Sample(Labels("state", state), float64(p.TransactionalIDs[state]))
	}
}

func groupsByState(t *Text, p *Picture) {
	for _, state := range slices.Sorted(maps.Keys(p.GroupsByState)) {
		t.Sample(Labels("state", state), float64(p.GroupsByState[state]))
	}
}

func byGroup(of func(*GroupPicture) float64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		for i := range p.Groups {
			t.Sample(Labels("consumergroup", p.Groups[i].Name), of(&p.Groups[i]))
		}
	}
}

func byOffset(of func(*OffsetPicture) (int64, bool)) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		left := p.LagSeries
		for i := range p.Groups {
			group := Labels("consumergroup", p.Groups[i].Name) + ","
			for j := range p.Groups[i].Offsets {
				if left--; left < 0 {
					return
				}
				o := &p.Groups[i].Offsets[j]
				if v, ok := of(o); ok {
					t.Sample(group+partitionLabels(o.Topic, o.Number), float64(v))
				}
			}
		}
	}
}

func byGroupTopic(of func(*OffsetPicture) int64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		for i := range p.Groups {
			sums := map[string]int64{}
			for j := range p.Groups[i].Offsets {
				o := &p.Groups[i].Offsets[j]
				sums[o.Topic] += of(o)
			}
			for _, topic := range slices.Sorted(maps.Keys(sums)) {
				t.Sample(Labels("consumergroup", p.Groups[i].Name, "topic", topic), float64(sums[topic]))
			}
		}
	}
}

func byPartition(of func(*PartitionPicture) float64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		if !p.PerPartition {
			return
		}
		for i := range p.Partitions {
			t.Sample(p.Partitions[i].labels, of(&p.Partitions[i]))
		}
	}
}

func byLed(of func(*PartitionPicture) float64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		if !p.PerPartition {
			return
		}
		for i := range p.Partitions {
			if p.Partitions[i].Leads {
				t.Sample(p.Partitions[i].labels, of(&p.Partitions[i]))
			}
		}
	}
}

// byLedOrLost also tells of partitions without a leader, on the controller.
func byLedOrLost(of func(*PartitionPicture) float64) func(*Text, *Picture) {
	led := byLed(of)
	return func(t *Text, p *Picture) {
		led(t, p)
		if !p.PerPartition || p.Cluster == nil {
			return
		}
		for i := range p.Cluster.Leaderless {
			t.Sample(p.Cluster.Leaderless[i].labels, of(&p.Cluster.Leaderless[i]))
		}
	}
}

func replicasCount(p *PartitionPicture) float64 {
	if !p.Leads {
		return 0
	}
	return float64(p.Replicas)
}

func followerLag(t *Text, p *Picture) {
	if !p.PerPartition {
		return
	}
	for i := range p.Partitions {
		if q := &p.Partitions[i]; q.Follows {
			t.Sample(fmt.Sprintf(`clientId="ReplicaFetcherThread-%d-%d",`, q.Thread, q.Leader)+q.labels, float64(q.Lag))
		}
	}
}
