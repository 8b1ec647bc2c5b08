import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;

/**
 * Every call of Java's admin client, each on its own: AdminSurface.java BOOTSTRAP.
 *
 * One line for each: the call, what came of it ("done", or the name of the error), and how many milliseconds it took. A call that
 * is not answered within its time ends as TimeoutException.
 */
public class AdminSurface {
    interface Call { KafkaFuture<?> make() throws Exception; }

    static Admin admin;
    static final String TOPIC = "surface";
    static final TopicPartition PARTITION = new TopicPartition(TOPIC, 0);

    static void ask(String name, Call call) {
        long began = System.nanoTime();
        String outcome;
        try {
            Object told = call.make().get(20, TimeUnit.SECONDS);
            outcome = "done";
            if (told instanceof Collection<?> many) outcome += " " + many.size();
            if (told instanceof Map<?, ?> many) outcome += " " + many.size();
        } catch (ExecutionException error) {
            outcome = error.getCause().getClass().getSimpleName();
        } catch (Exception error) {
            outcome = error.getClass().getSimpleName();
        }
        System.out.printf("%s %s %d%n", name, outcome.replace(' ', '='), (System.nanoTime() - began) / 1_000_000);
    }

    static ConfigResource topic() { return new ConfigResource(ConfigResource.Type.TOPIC, TOPIC); }
    static ConfigResource broker(String name) { return new ConfigResource(ConfigResource.Type.BROKER, name); }

    static KafkaFuture<?> alter(ConfigResource resource, String name, String value, AlterConfigOp.OpType type) {
        return admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), type)))).all();
    }

    public static void main(String[] arguments) throws Exception {
        admin = Admin.create(Map.of("bootstrap.servers", arguments[0], "default.api.timeout.ms", 15_000, "request.timeout.ms", 10_000));
        topics();
        configs();
        partitions();
        groups();
        cluster();
        security();
        transactions();
        ask("deleteTopics", () -> admin.deleteTopics(List.of(TOPIC)).all());
        ask("close", () -> { admin.close(java.time.Duration.ofSeconds(5)); return KafkaFuture.completedFuture(null); });
    }

    static void topics() {
        ask("createTopics", () -> admin.createTopics(List.of(new NewTopic(TOPIC, 2, (short) -1).configs(Map.of("retention.ms", "-1")))).all());
        ask("createTopics.again", () -> admin.createTopics(List.of(new NewTopic(TOPIC, 2, (short) -1))).all());
        ask("createTopics.unknownConfig", () -> admin.createTopics(List.of(new NewTopic("no", 1, (short) -1).configs(Map.of("no.such", "1")))).all());
        ask("createTopics.config", () -> admin.createTopics(List.of(new NewTopic("other", 1, (short) -1))).config("other"));
        ask("listTopics", () -> admin.listTopics(new ListTopicsOptions().listInternal(true)).names());
        ask("describeTopics", () -> admin.describeTopics(List.of(TOPIC)).allTopicNames());
        ask("describeTopics.unknown", () -> admin.describeTopics(List.of("no-such")).allTopicNames());
        ask("createPartitions", () -> admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(3))).all());
        ask("createPartitions.fewer", () -> admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(1))).all());
    }

    static void configs() {
        ask("describeConfigs.topic", () -> admin.describeConfigs(List.of(topic()), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all());
        ask("describeConfigs.broker", () -> admin.describeConfigs(List.of(broker("1"), broker(""))).all());
        ask("alter.set", () -> alter(topic(), "segment.bytes", "2048", AlterConfigOp.OpType.SET));
        ask("alter.append", () -> alter(topic(), "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND));
        ask("alter.subtract", () -> alter(topic(), "cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT));
        ask("alter.delete", () -> alter(topic(), "segment.bytes", null, AlterConfigOp.OpType.DELETE));
        ask("alter.unknown", () -> alter(topic(), "no.such", "1", AlterConfigOp.OpType.SET));
        ask("alter.bad", () -> alter(topic(), "segment.bytes", "many", AlterConfigOp.OpType.SET));
        ask("alter.broker", () -> alter(broker(""), "log.segment.bytes", "1000000", AlterConfigOp.OpType.SET));
        ask("alter.broker.one", () -> alter(broker("1"), "log.segment.bytes", "2000000", AlterConfigOp.OpType.SET));
        ask("alter.broker.static", () -> alter(broker("1"), "node.id", "7", AlterConfigOp.OpType.SET));
        ask("alter.broker.delete", () -> alter(broker("1"), "log.segment.bytes", null, AlterConfigOp.OpType.DELETE));
        ask("alter.broker.deleteAll", () -> alter(broker(""), "log.segment.bytes", null, AlterConfigOp.OpType.DELETE));
        ask("alter.logger", () -> alter(new ConfigResource(ConfigResource.Type.BROKER_LOGGER, "1"), "root", "INFO", AlterConfigOp.OpType.SET));
        ask("listConfigResources", () -> admin.listConfigResources().all());
        ask("listClientMetricsResources", () -> admin.listConfigResources(Set.of(ConfigResource.Type.CLIENT_METRICS), new ListConfigResourcesOptions()).all());
    }

    static void partitions() {
        ask("listOffsets", () -> admin.listOffsets(Map.of(PARTITION, OffsetSpec.latest())).all());
        ask("listOffsets.maxTimestamp", () -> admin.listOffsets(Map.of(PARTITION, OffsetSpec.maxTimestamp())).all());
        ask("listOffsets.earliestLocal", () -> admin.listOffsets(Map.of(PARTITION, OffsetSpec.earliestLocal())).all());
        ask("listOffsets.latestTiered", () -> admin.listOffsets(Map.of(PARTITION, OffsetSpec.latestTiered())).all());
        ask("deleteRecords", () -> admin.deleteRecords(Map.of(PARTITION, RecordsToDelete.beforeOffset(-1))).all());
        ask("deleteRecords.beyond", () -> admin.deleteRecords(Map.of(PARTITION, RecordsToDelete.beforeOffset(99))).all());
        ask("describeProducers", () -> admin.describeProducers(List.of(PARTITION)).all());
        ask("describeLogDirs", () -> admin.describeLogDirs(List.of(1)).allDescriptions());
        ask("describeReplicaLogDirs", () -> admin.describeReplicaLogDirs(List.of(new TopicPartitionReplica(TOPIC, 0, 1))).all());
        ask("alterReplicaLogDirs", () -> admin.alterReplicaLogDirs(Map.of(new TopicPartitionReplica(TOPIC, 0, 1), "/nowhere")).all());
        ask("electLeaders", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(PARTITION)).all());
        ask("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments());
        ask("alterPartitionReassignments", () -> admin.alterPartitionReassignments(Map.of(PARTITION, Optional.empty())).all());
    }

    static void groups() {
        String group = "nobody";
        Map<TopicPartition, OffsetAndMetadata> offsets = Map.of(PARTITION, new OffsetAndMetadata(0));
        ask("alterConsumerGroupOffsets", () -> admin.alterConsumerGroupOffsets(group, offsets).all());
        ask("listGroups", () -> admin.listGroups().all());
        ask("listConsumerGroups", () -> admin.listConsumerGroups().all());
        ask("describeConsumerGroups", () -> admin.describeConsumerGroups(List.of(group)).all());
        ask("describeClassicGroups", () -> admin.describeClassicGroups(List.of(group)).all());
        ask("listConsumerGroupOffsets", () -> admin.listConsumerGroupOffsets(group).all());
        ask("deleteConsumerGroupOffsets", () -> admin.deleteConsumerGroupOffsets(group, Set.of(PARTITION)).all());
        ask("removeMembersFromConsumerGroup", () -> admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all());
        ask("deleteConsumerGroups", () -> admin.deleteConsumerGroups(List.of(group)).all());
        ask("describeShareGroups", () -> admin.describeShareGroups(List.of(group)).all());
        ask("describeStreamsGroups", () -> admin.describeStreamsGroups(List.of(group)).all());
    }

    static void cluster() {
        ask("describeCluster", () -> admin.describeCluster().nodes());
        ask("describeCluster.operations", () -> admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations());
        ask("describeMetadataQuorum", () -> admin.describeMetadataQuorum().quorumInfo());
        ask("describeFeatures", () -> admin.describeFeatures().featureMetadata());
        ask("updateFeatures", () -> admin.updateFeatures(Map.of("metadata.version", new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions()).all());
        ask("unregisterBroker", () -> admin.unregisterBroker(77).all());
        ask("addRaftVoter", () -> admin.addRaftVoter(7, Uuid.randomUuid(), Set.of(new RaftVoterEndpoint("a", "h", 1))).all());
        ask("removeRaftVoter", () -> admin.removeRaftVoter(7, Uuid.randomUuid()).all());
        ask("clientInstanceId", () -> KafkaFuture.completedFuture(admin.clientInstanceId(java.time.Duration.ofSeconds(5))));
    }

    static void security() {
        AclBinding rule = new AclBinding(new ResourcePattern(ResourceType.TOPIC, TOPIC, PatternType.LITERAL),
            new AccessControlEntry("User:a", "*", AclOperation.READ, AclPermissionType.ALLOW));
        ask("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values());
        ask("createAcls", () -> admin.createAcls(List.of(rule)).all());
        ask("deleteAcls", () -> admin.deleteAcls(List.of(AclBindingFilter.ANY)).all());
        ask("describeClientQuotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities());
        ask("alterClientQuotas", () -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(Map.of("user", "a")),
            List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1.0))))).all());
        ask("describeUserScramCredentials", () -> admin.describeUserScramCredentials().all());
        ask("alterUserScramCredentials", () -> admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion("a", ScramMechanism.SCRAM_SHA_256))).all());
        ask("createDelegationToken", () -> admin.createDelegationToken().delegationToken());
        ask("describeDelegationToken", () -> admin.describeDelegationToken().delegationTokens());
    }

    static void transactions() {
        ask("listTransactions", () -> admin.listTransactions().all());
        ask("describeTransactions", () -> admin.describeTransactions(List.of("a")).all());
        ask("fenceProducers", () -> admin.fenceProducers(List.of("a")).all());
        ask("abortTransaction", () -> admin.abortTransaction(new AbortTransactionSpec(PARTITION, 1, (short) 0, 0)).all());
    }
}
