"""Topics by confluent-kafka's admin client.

admin.py BOOTSTRAP alter TOPIC [+]NAME=VALUE|-NAME...     changes the configuration; +: adds to a list, -: deletes; or the error
admin.py BOOTSTRAP check TOPIC [+]NAME=VALUE|-NAME...     the same, and changes nothing
admin.py BOOTSTRAP replace TOPIC NAME=VALUE...             the whole configuration, by the older request
admin.py BOOTSTRAP create TOPIC PARTITIONS [NAME=VALUE]...
admin.py BOOTSTRAP delete TOPIC
admin.py BOOTSTRAP delete-records TOPIC PARTITION OFFSET      the partition's first offset from then on, or the error's name; -1: all
admin.py BOOTSTRAP describe TOPIC         the topic's configuration as one JSON object
admin.py BOOTSTRAP list
admin.py BOOTSTRAP group-offsets GROUP TOPIC      what the group has committed, by partition; nothing while nobody answers
admin.py BOOTSTRAP group-owners GROUP     the group's state, and which of its members owns each partition; nothing while nobody answers
"""

import json
import sys

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

admin = AdminClient({"bootstrap.servers": sys.argv[1]})
verb, rest = sys.argv[2], sys.argv[3:]


def tell(futures):
    for future in futures.values():
        try:
            future.result(30)
            print(json.dumps({"done": rest[0]}))
        except KafkaException as error:
            print(json.dumps({"error": error.args[0].name(), "message": error.args[0].str()}))


if verb == "create":
    config = dict(pair.split("=", 1) for pair in rest[2:])
    topic = NewTopic(rest[0], num_partitions=int(rest[1]), config=config)
    for future in admin.create_topics([topic], operation_timeout=30).values():
        future.result()
    print(json.dumps({"created": rest[0]}))
elif verb == "delete":
    for future in admin.delete_topics([rest[0]], operation_timeout=30).values():
        future.result()
    print(json.dumps({"deleted": rest[0]}))
elif verb == "delete-records":
    place = TopicPartition(rest[0], int(rest[1]), int(rest[2]))
    try:
        print(json.dumps({"low_watermark": admin.delete_records([place], operation_timeout=30)[place].result().low_watermark}))
    except KafkaException as error:
        print(json.dumps({"error": error.args[0].name()}))
elif verb == "group-offsets":
    count = len(admin.list_topics(rest[1], timeout=30).topics[rest[1]].partitions)
    asked = ConsumerGroupTopicPartitions(rest[0], [TopicPartition(rest[1], partition) for partition in range(count)])
    try:
        for place in admin.list_consumer_group_offsets([asked])[rest[0]].result(30).topic_partitions:
            if place.offset >= 0:
                print(json.dumps({"partition": place.partition, "offset": place.offset}))
    except KafkaException as error:
        print(error, file=sys.stderr)
elif verb == "group-owners":
    try:
        group = admin.describe_consumer_groups(rest)[rest[0]].result(30)
        owners = [
            {"member": member.member_id, "topic": place.topic, "partition": place.partition}
            for member in group.members
            for place in member.assignment.topic_partitions
        ]
        print(json.dumps({"state": group.state.name, "owners": owners}))
    except KafkaException as error:
        print(error, file=sys.stderr)
elif verb in ("alter", "check"):
    entries = []
    for change in rest[1:]:
        name, _, value = change.lstrip("+-").partition("=")
        kind = {"+": AlterConfigOpType.APPEND, "-": AlterConfigOpType.DELETE}.get(change[0], AlterConfigOpType.SET)
        value = None if kind == AlterConfigOpType.DELETE else value
        entries.append(ConfigEntry(name, value, incremental_operation=kind))
    resource = ConfigResource(ResourceType.TOPIC, rest[0], incremental_configs=entries)
    tell(admin.incremental_alter_configs([resource], validate_only=verb == "check"))
elif verb == "replace":
    own = dict(pair.split("=", 1) for pair in rest[1:])
    tell(admin.alter_configs([ConfigResource(ResourceType.TOPIC, rest[0], set_config=own)]))
elif verb == "describe":
    for future in admin.describe_configs([ConfigResource(ResourceType.TOPIC, rest[0])]).values():
        print(json.dumps({entry.name: entry.value for entry in future.result().values()}))
elif verb == "list":
    print(json.dumps(sorted(admin.list_topics(timeout=30).topics)))
else:
    sys.exit(__doc__)
