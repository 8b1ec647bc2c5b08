"""What a consumer with an old leader epoch is told, decoded by kafka-python's own protocol classes.

fenced.py BOOTSTRAP TOPIC VERSION EPOCH    fetches partition 0 from its beginning; prints the answer as JSON
"""

import json
import socket
import struct
import sys

from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.protocol.metadata import MetadataRequest, MetadataResponse

host, port = sys.argv[1].rsplit(":", 1)
topic, version, epoch = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
connection = socket.create_connection((host, int(port)), timeout=30)


def exactly(count):
    received = b""
    while len(received) < count:
        some = connection.recv(count - len(received))
        if not some:
            sys.exit("the connection was closed")
        received += some
    return received


def ask(request, response, version):
    request.with_header(correlation_id=1, client_id="fenced")
    connection.sendall(request.encode(version=version, header=True, framed=True))
    frame = exactly(struct.unpack(">i", exactly(4))[0])
    return response.decode(frame, version=version, header=True)


named = MetadataRequest.MetadataRequestTopic(topic_id=None, name=topic, version=12)
metadata = ask(
    MetadataRequest(topics=[named], allow_auto_topic_creation=False, version=12), MetadataResponse, 12
)
about = metadata.topics[0]
partition = FetchRequest.FetchTopic.FetchPartition(
    partition=0, current_leader_epoch=epoch, fetch_offset=0, partition_max_bytes=1 << 20, version=version
)
wanted = FetchRequest.FetchTopic(
    topic=topic, topic_id=about.topic_id, partitions=[partition], version=version
)
answer = ask(
    FetchRequest(
        max_wait_ms=0, min_bytes=0, max_bytes=1 << 20, session_epoch=-1, topics=[wanted], version=version
    ),
    FetchResponse,
    version,
)
told = answer.responses[0].partitions[0]
leader = told.current_leader
print(
    json.dumps(
        {
            "error": told.error_code,
            # Tagged fields that did not come are None.
            "leader": [leader.leader_id, leader.leader_epoch] if leader else [-1, -1],
            "endpoints": [[at.node_id, at.host, at.port] for at in answer.node_endpoints or []],
            "metadata": {
                "leader": [about.partitions[0].leader_id, about.partitions[0].leader_epoch],
                "brokers": [[at.node_id, at.host, at.port] for at in metadata.brokers],
            },
        }
    )
)
