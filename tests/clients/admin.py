"""Topics by confluent-kafka's admin client.

admin.py BOOTSTRAP create TOPIC PARTITIONS [NAME=VALUE]...
admin.py BOOTSTRAP delete TOPIC
admin.py BOOTSTRAP delete-records TOPIC PARTITION OFFSET      the partition's first offset from then on, or the error's name; -1: all
admin.py BOOTSTRAP describe TOPIC         the topic's configuration as one JSON object
admin.py BOOTSTRAP list
"""

import json
import sys

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

admin = AdminClient({"bootstrap.servers": sys.argv[1]})
verb, rest = sys.argv[2], sys.argv[3:]
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
elif verb == "describe":
    for future in admin.describe_configs([ConfigResource(ResourceType.TOPIC, rest[0])]).values():
        print(json.dumps({entry.name: entry.value for entry in future.result().values()}))
elif verb == "list":
    print(json.dumps(sorted(admin.list_topics(timeout=30).topics)))
else:
    sys.exit(__doc__)
