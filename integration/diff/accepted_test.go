package diff

// accepted are the differences that are wanted.
var accepted = []difference{
	differs(`twice: CreateTopics`, `INVALID_REQUEST`, `INVALID_REQUEST`, "a topic that was named twice is refused once, not twice"),
	differs(`CreateTopics`, `"Configs":\[\],"ErrorCode":"[A-Z_]*[A-Z]"`, `"Configs":null,"ErrorCode":"[A-Z_]*[A-Z]"`,
		"the settings of a topic that was not created are null, not an empty list"),
	differs(`neither id nor name: Metadata`, `UNKNOWN_SERVER_ERROR`, `INVALID_REQUEST`, "a request that names nothing is the client's fault"),

	differs(`Produce v`, `"ErrorCode":"(INVALID_RECORD|CORRUPT_MESSAGE|MESSAGE_TOO_LARGE)","ErrorMessage":(null|"Invalid magic)`,
		`"ErrorCode":"(INVALID_RECORD|CORRUPT_MESSAGE|MESSAGE_TOO_LARGE)","ErrorMessage":`,
		"a refused batch says why, where Kafka sends the code alone; the log start offset is told where it may matter: for sequences"),
	differs(`(null key.*|good and bad together): Produce`, `rejected due to .*"LogStartOffset":0`, `rejected due to .*"LogStartOffset":-1`,
		"the same for records that are refused one by one"),
	differs(`append-time bit, append time: Produce`, `INVALID_TIMESTAMP`, `INVALID_TIMESTAMP`,
		"a batch with the append-time bit is refused as a whole, not record by record"),
	differs(`(unknown codec 5|says gzip, is not|says zstd, is not): Produce`, `UNKNOWN_SERVER_ERROR|silence`, `INVALID_RECORD`,
		"records that cannot be decompressed are the client's fault, not an error of the broker"),
	differs(`null records: Produce`, `silence`, `INVALID_RECORD`, "Kafka 3.9 never answers null records"),
	differs(`(again|oldest known): Produce`, `"LogAppendTime":"TIME"`, `"LogAppendTime":-1`,
		"a duplicate has an append time only where the topic has append times; Kafka tells the batch's own"),

	differs(`Fetch v`, `"AbortedTransactions":\[\]`, `"AbortedTransactions":null`,
		"a partition that failed has no aborted transactions, whether null or none"),
	differs(`narrow: Fetch`, `"ErrorCode":"NONE"`, `"ErrorCode":"NONE"`,
		"the partitions of a session take turns from its first answer on, in Kafka from its second"),

	differs(`DescribeConfigs v0`, `"IsDefault":false`, `"IsDefault":true`,
		"version 0 of DescribeConfigs tells which values are defaults; Kafka 3.9 has forgotten to"),
	differs(`DescribeConfigs v[0-4]`, `"Documentation":"`, `"Documentation":"`, "the documentation is in words of our own"),
	differs(`DescribeConfigs v[04] of other keys`, ``, `ottla\.`, "there are settings that Kafka does not have"),
	differs(`resource twice: (Incremental)?AlterConfigs`, `silence`, `INVALID_REQUEST`, "Kafka 3.9 never answers a resource that is named twice"),
	differs(`(append to an unknown key|unknown operation): IncrementalAlterConfigs`, `UNKNOWN_SERVER_ERROR`, `INVALID_(CONFIG|REQUEST)`,
		"what the client got wrong is not an error of the broker"),
	differs(`(logger|level).*: IncrementalAlterConfigs|loggers of another: IncrementalAlterConfigs`, ``, `Unknown resource type 8`,
		"there are no loggers whose level could be changed"),

	differs(`older epoch: TxnOffsetCommit`, `UNKNOWN_SERVER_ERROR`, `INVALID_PRODUCER_EPOCH`, "a fenced producer is told so, not an error of the broker"),
	differs(`open for long: ListTransactions`, `"TransactionState":"Empty"`, `"TransactionStates":null`, "where nothing was ever open, nothing is open for long"),

	differs(`missing partition: DescribeProducers`, `"ErrorMessage":null`, `"ErrorMessage":"`, "the error has a sentence"),
	differs(`(AlterPartitionAssignments|ListPartitionReassignments)`, `"ErrorCode":"NONE","ErrorMessage":""`, `"ErrorCode":"NONE","ErrorMessage":null`,
		"no error has no sentence, not an empty one"),
	differs(`all: ElectLeaders`, `"Topics":null`, `PREFERRED_LEADER_NOT_AVAILABLE`, "a partition that never had a leader is told as one that could not be led"),
	differs(`(name and id|neither): DeleteTopics`, `"ErrorMessage":null`, `INVALID_REQUEST","ErrorMessage":"`, "the error fits and has a sentence"),
}
