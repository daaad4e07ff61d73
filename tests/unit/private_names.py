"""What this project uses of its libraries beyond their public interface: the one list.

An upgrade may take any of it away without a word. `tests/unit/test_private_names.py` fails with one
line for each name that is gone, that is used and not listed here, or that is listed and not used.

A name is one of:

    package.module                    a module that is not for users
    package.module:NAME               something in a module
    package.module:Class.attribute    of the class, or of its instances (``self.attribute = ...``)
    package.module:Class(a, b)        parameters of the constructor, in this order
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """A library of which more is used than it offers."""

    distribution: str
    versions: str
    """Those that the list holds for, as pyproject.toml says it."""
    public: frozenset[str]
    """The modules that are for users."""


LIBRARIES: Mapping[str, Library] = {
    "aiokafka": Library(
        "aiokafka",
        "==0.14.0",
        frozenset({"aiokafka", "aiokafka.admin", "aiokafka.errors", "aiokafka.structs"}),
    ),
    "faust": Library("faust-streaming", "==0.15.3", frozenset({"faust", "faust.types"})),
    "mode": Library("mode-streaming", "==0.7.1", frozenset({"mode"})),
    "jgo": Library("jgo", ">=3.2,<4", frozenset({"jgo", "jgo.config", "jgo.maven"})),
    "pydantic": Library(
        "pydantic", ">=2.12,<3", frozenset({"pydantic", "pydantic.alias_generators"})
    ),
}
"""By the package that is imported."""


@dataclass(frozen=True)
class PrivateName:
    """A name, the file that uses it, and what for: ``{used_in} {purpose}`` is a sentence."""

    name: str
    used_in: str
    purpose: str

    @property
    def library(self) -> Library:
        """The library that it belongs to."""
        return LIBRARIES[self.name.replace(":", ".").partition(".")[0]]

    @property
    def module(self) -> str:
        """The module that it is in, or that it is."""
        return self.name.partition(":")[0]

    @property
    def path(self) -> list[str]:
        """The way to it inside the module; empty for the module itself."""
        inside = self.name.partition("(")[0].partition(":")[2]
        return inside.split(".") if inside else []

    @property
    def parameters(self) -> list[str]:
        """Those of the constructor."""
        inside = self.name.partition("(")[2].rstrip(")")
        return inside.split(", ") if inside else []


_USES: Mapping[str, Mapping[str, str]] = {
    "models/command_decoder.py": {
        "pydantic.main:BaseModel.__pydantic_fields_set__": "sets it as `model_construct` does",
        "pydantic.main:BaseModel.__pydantic_extra__": "sets it as `model_construct` does",
        "pydantic.main:BaseModel.__pydantic_private__": "sets it as `model_construct` does",
    },
    "streams/commands/client.py": {
        "aiokafka.record.default_records:DefaultRecordBatchBuilder.estimate_size_in_bytes": (
            "checks the size of a command before it is sent"
        ),
    },
    "streams/kafka/aiokafka_patches.py": {
        "aiokafka.client:AIOKafkaClient._retry_backoff": (
            "sets how often brokers are asked about a topic that they do not know"
        ),
        "aiokafka.client:AIOKafkaClient._get_conn": (
            "waits in it before a broker that cannot be reached is tried again"
        ),
        "aiokafka.consumer.consumer:AIOKafkaConsumer._fetcher": "lets it read within bounds",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._client": "sees what brokers answer",
        "aiokafka.client:AIOKafkaClient.send": "sees what brokers answer",
        "aiokafka.protocol.fetch:FetchRequest": "tells a fetch by it",
        "aiokafka.consumer.fetcher:Fetcher._subscriptions": "reads positions from it",
        "aiokafka.consumer.subscription_state:SubscriptionState.subscription": "as above",
        "aiokafka.consumer.subscription_state:Subscription.assignment": "as above",
        "aiokafka.consumer.subscription_state:Assignment.tps": "as above",
        "aiokafka.consumer.subscription_state:Assignment.state_value": "as above",
        "aiokafka.consumer.subscription_state:TopicPartitionState.has_valid_position": "as above",
        "aiokafka.consumer.subscription_state:TopicPartitionState.position": "as above",
        "aiokafka.consumer.fetcher:Fetcher._records": "checks whether a partition has an error",
        "aiokafka.consumer.fetcher:Fetcher._set_error": "raises by it that a log is damaged",
        "aiokafka.consumer.fetcher:Fetcher._fetch_waiters": "ends the waits for records",
        "aiokafka.consumer.fetcher:Fetcher._notify": "ends the waits for records",
        "aiokafka.consumer.fetcher:Fetcher._proc_fetch_request": (
            "lets it find our classes under the names MemoryRecords and PartitionRecords"
        ),
        "aiokafka.consumer.fetcher:PartitionRecords._tp": "names the partition that is damaged",
        "aiokafka.consumer.fetcher:PartitionRecords._unpack_records": (
            "overrides it to return what is before a damaged batch"
        ),
        "aiokafka.consumer.fetcher:PartitionRecords.next_fetch_offset": (
            "tells by it whether any record was returned"
        ),
        "aiokafka.consumer.fetcher:PartitionRecords._consumer_record": (
            "sets the type of record that a fetch returns"
        ),
        "aiokafka.record.default_records:DefaultRecord": "makes our records of it",
        "aiokafka.producer.producer:AIOKafkaProducer._sender": (
            "shortens a producer's wait for the markers of the last transaction"
        ),
        "aiokafka.producer.sender:AddPartitionsToTxnHandler(sender, topic_partitions)": (
            "makes one with a shorter wait"
        ),
        "aiokafka.producer.sender:AddPartitionsToTxnHandler.do": "sends the request with it",
        "aiokafka.producer.sender:AddPartitionsToTxnHandler.handle_response": (
            "overrides it: it returns how long to wait"
        ),
        "aiokafka.producer.transaction_manager:TransactionManager.fatal_error": (
            "fails the transaction with it whose end may still arrive"
        ),
        "aiokafka.protocol.transaction:EndTxnRequest": "tells the end of a transaction by it",
        "aiokafka.producer.sender:BACKOFF_OVERRIDE": "tells by it the wait that it shortens",
        "aiokafka.client:CoordinationType.TRANSACTION": "asks for this coordinator",
        "aiokafka.producer.sender:Sender._do_add_partitions_to_txn": (
            "replaces it for one producer, to use its own handler"
        ),
        "aiokafka.producer.sender:Sender._find_coordinator": "asks it where to send the request",
        "aiokafka.producer.sender:Sender._in_flight": "overrides the method that ends a request",
        "aiokafka.producer.sender:Sender._muted_partitions": (
            "overrides the method that ends a request"
        ),
        "aiokafka.producer.sender:Sender._retry_backoff": (
            "overrides it to wait ever longer before a retry"
        ),
        "aiokafka.producer.sender:Sender._send_produce_req": (
            "overrides it to use its own handler"
        ),
        "aiokafka.producer.sender:SendProduceReqHandler(sender, batches)": (
            "makes one that keeps the reason of a refusal"
        ),
        "aiokafka.producer.sender:SendProduceReqHandler._can_retry": (
            "overrides it: it is given the reason of a refusal"
        ),
        "aiokafka.producer.sender:Sender._txn_manager": "reads the transactional id from it",
        "aiokafka.producer.transaction_manager:TransactionManager.transactional_id": (
            "finds the coordinator by it"
        ),
    },
    "streams/kafka/decompression.py": {
        "aiokafka.codec:lz4_decode": "unpacks by it what is small enough",
        "aiokafka.codec:snappy_decode": "unpacks by it what is small enough",
        "aiokafka.codec:zstd_decode": "unpacks by it what is small enough",
    },
    "streams/kafka/batches.py": {
        "aiokafka.record.default_records:DefaultRecordBatch": "reads the records of a batch by it",
        "aiokafka.record.memory_records:MemoryRecords": "stands in its place in a fetch",
        "aiokafka.record.util:decode_varint": "reads the records that aiokafka cannot read",
    },
    "streams/kafka/clients.py": {
        "aiokafka.consumer.consumer:AIOKafkaConsumer.start": (
            "overrides it: what is fetched afterwards is read within bounds"
        ),
        "aiokafka.admin.client:AIOKafkaAdminClient._client": "checks whether it knows a broker",
        "aiokafka.client:AIOKafkaClient._conns": "disconnects a client that does not stop",
        "aiokafka.client:AIOKafkaClient.close": "disconnects a client that does not stop",
        "aiokafka.client:AIOKafkaClient.cluster": "checks whether an admin client knows a broker",
        "aiokafka.conn:CloseReason.SHUTDOWN": "disconnects a client that does not stop",
        "aiokafka.cluster:ClusterMetadata.brokers": "checks whether an admin client knows a broker",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._client": (
            "disconnects a consumer that does not stop"
        ),
        "aiokafka.producer.producer:AIOKafkaProducer._message_accumulator": (
            "finds the tasks of a producer that does not stop"
        ),
        "aiokafka.producer.producer:AIOKafkaProducer._sender": (
            "finds the tasks of a producer that does not stop"
        ),
        "aiokafka.producer.producer:AIOKafkaProducer.client": (
            "disconnects a producer that does not stop"
        ),
    },
    "streams/kafka/brokers.py": {
        "aiokafka.admin.client:AIOKafkaAdminClient._client": (
            "sends a request that aiokafka does not know"
        ),
        "aiokafka.admin.config_resource:ConfigResource(resource_type, name)": (
            "asks for the configuration of a broker with it"
        ),
        "aiokafka.admin.config_resource:ConfigResourceType.BROKER": (
            "asks for the configuration of a broker with it"
        ),
    },
    "streams/kafka/groups.py": {
        "aiokafka.coordinator.protocol:ConsumerProtocolMemberAssignment": (
            "reads from it which partitions the members of a group own"
        ),
        "aiokafka.coordinator.protocol:ConsumerProtocolMemberAssignment.decode": "decodes it",
        "aiokafka.coordinator.protocol:ConsumerProtocolMemberAssignment.partitions": "reads it",
    },
    "streams/kafka/metadata.py": {
        "aiokafka.client:AIOKafkaClient.send": "sends a request that aiokafka does not know",
        "aiokafka.client:CoordinationType.GROUP": "finds the coordinator of a group with it",
        "aiokafka.protocol.admin:ApiVersionRequest": "asks a broker what it understands",
        "aiokafka.protocol.admin:DescribeGroupsResponse_v3": (
            "reads what may be done with a group from it"
        ),
        "aiokafka.protocol.api:Request.API_KEY": "defines a request that aiokafka does not know",
        "aiokafka.protocol.api:Request.build": "overrides it to fill in the request",
        "aiokafka.protocol.api:RequestStruct.API_KEY": "defines the request's format",
        "aiokafka.protocol.api:RequestStruct.API_VERSION": "defines the request's format",
        "aiokafka.protocol.api:RequestStruct.FLEXIBLE_VERSION": "defines the request's format",
        "aiokafka.protocol.api:RequestStruct.RESPONSE_TYPE": "defines the request's format",
        "aiokafka.protocol.api:RequestStruct.SCHEMA": "defines the request's format",
        "aiokafka.protocol.api:Response.API_KEY": "defines the response's format",
        "aiokafka.protocol.api:Response.API_VERSION": "defines the response's format",
        "aiokafka.protocol.api:Response.SCHEMA": "defines the response's format",
        "aiokafka.protocol.types:Array": "defines the formats with it",
        "aiokafka.protocol.types:Boolean": "defines the formats with it",
        "aiokafka.protocol.types:CompactArray": "defines the formats with it",
        "aiokafka.protocol.types:CompactString": "defines the formats with it",
        "aiokafka.protocol.types:Int16": "defines the formats with it",
        "aiokafka.protocol.types:Int32": "defines the formats with it",
        "aiokafka.protocol.types:Int64": "defines the formats with it",
        "aiokafka.protocol.types:Schema": "defines the formats with it",
        "aiokafka.protocol.types:String": "defines the formats with it",
        "aiokafka.protocol.types:TaggedFields": "defines the formats with it",
    },
    "streams/kafka/connections.py": {
        "aiokafka.client:AIOKafkaClient": "lets it connect by another function",
        "aiokafka.client:AIOKafkaClient._get_conn": (
            "lets it find our function under the name create_conn"
        ),
        "aiokafka.client:create_conn": "is found by clients under this name",
        "aiokafka.conn:AIOKafkaConnection": "is what it changes",
        "aiokafka.conn:AIOKafkaConnection._requests": "ends a session when no answer is awaited",
        "aiokafka.conn:AIOKafkaConnection._sasl_oauth_token_provider": "asks it for a token",
        "aiokafka.conn:AIOKafkaConnection.authenticator_oauth": (
            "overrides it: a refusal is acknowledged"
        ),
        "aiokafka.conn:AIOKafkaConnection._create_reader_task": (
            "overrides it, which is called before anything is sent, to set options of the socket"
        ),
        "aiokafka.conn:AIOKafkaConnection.close": "closes one that is broken, or is to be replaced",
        "aiokafka.conn:AIOKafkaConnection._request_timeout": (
            "changes it while it connects: requests have longer"
        ),
        "aiokafka.conn:AIOKafkaConnection.connect": "connects as aiokafka's clients do",
        "aiokafka.conn:AIOKafkaConnection.connected": (
            "overrides it, which clients ask before each request, to end a session there"
        ),
        "aiokafka.conn:AIOKafkaConnection.host": "names the broker",
        "aiokafka.conn:AIOKafkaConnection.port": "names the broker",
        "aiokafka.conn:AIOKafkaConnection.send": (
            "forbids in it that asking about a topic creates it, and raises another error"
        ),
        "aiokafka.conn:AIOKafkaConnection._send_sasl_token": "raises another error",
        "aiokafka.conn:AIOKafkaConnection._writer": "asks it whether the connection is broken",
        "aiokafka.conn:CloseReason.CONNECTION_BROKEN": "closes a connection that is broken",
        "aiokafka.conn:CloseReason.SHUTDOWN": "tells by it that the end of a connection is awaited",
        "aiokafka.conn:OAuthAuthenticator(sasl_oauth_token_provider)": "makes its own",
        "aiokafka.conn:OAuthAuthenticator.step": "overrides it: a refusal is acknowledged",
        "aiokafka.protocol.admin:SaslAuthenticateRequest": "tells by it who learns of a session",
        "aiokafka.protocol.metadata:MetadataRequest._allow_auto_topic_creation": (
            "forbids by it that asking about a topic creates it"
        ),
    },
    "streams/kafka/permissions.py": {
        "aiokafka.client:AIOKafkaClient.get_random_node": "asks any broker",
        "aiokafka.admin.client:AIOKafkaAdminClient._client": (
            "sends a request that aiokafka does not know"
        ),
    },
    "streams/kafka/refusal.py": {
        "aiokafka.protocol.metadata:MetadataRequest": "asks what every client asks first",
    },
    "streams/kafka/sasl.py": {
        "aiokafka.abc:AbstractTokenProvider": "makes of a function what aiokafka asks for tokens",
        "aiokafka.abc:AbstractTokenProvider.token": "overrides it",
    },
    "streams/kafka/topic_ids.py": {
        "aiokafka.client:AIOKafkaClient.get_random_node": "asks any broker",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._client": (
            "sends a request that aiokafka does not know"
        ),
    },
    "streams/kafka/topics.py": {
        "aiokafka.admin.config_resource:ConfigResource(resource_type, name)": (
            "asks for the settings of topics with it"
        ),
        "aiokafka.admin.config_resource:ConfigResourceType.TOPIC": (
            "asks for the settings of topics with it"
        ),
    },
    "streams/kafka/transactions.py": {
        "aiokafka.producer.message_accumulator:BatchBuilder._builder": (
            "appends records to it, which takes half of the time of `BatchBuilder.append`"
        ),
        "aiokafka.producer.message_accumulator:BatchBuilder._relative_offset": (
            "sets the number of records that it appended"
        ),
        "aiokafka.producer.message_accumulator:BatchBuilder.close": "completes a batch by it",
        "aiokafka.producer.producer:AIOKafkaProducer._txn_manager": (
            "checks whether a transaction is open"
        ),
        "aiokafka.producer.transaction_manager:TransactionManager.is_in_transaction": (
            "checks whether a transaction is open"
        ),
        "aiokafka.producer.transaction_manager:TransactionManager.wait_for_transaction_end": (
            "finds out by it why a transaction has ended early"
        ),
        "aiokafka.record.default_records:DefaultRecordBatchBuilder.append": (
            "appends records by it; it returns None where there is no room"
        ),
    },
    "streams/state/table.py": {
        "faust.stores.memory:Store(url, app, table, table_name)": (
            "derives the store behind the state table from it"
        ),
        "faust.tables.base:Collection._new_store": "overrides it to put its own store there",
        "faust.tables.base:Collection.data": "reads its store from it",
        "faust.tables.table:Table(app, name, key_type, value_type)": (
            "derives the state table from it"
        ),
        "faust.tables.table:Table.on_key_del": "overrides it to refuse deletions",
        "faust.tables.table:Table.on_key_set": "overrides it to refuse changes",
    },
    "streams/worker/app.py": {
        "faust.app.base:App._create_directories": "overrides it: nothing is kept on disk",
        "faust.app.base:App._init_fixups": "overrides it: only our settings configure a worker",
        "faust.app.base:App._new_producer_transport": "overrides it to use its own transport",
        "faust.app.base:App._new_transport": "overrides it to use its own transport",
        "faust.app.base:App._on_agent_error": "overrides it to stop the worker with one line",
        "faust.app.base:App.logger": "sets whose lines Faust's are",
        "faust.app.base:App.on_first_start": "overrides it to open the clients",
        "faust.app.base:App.on_stop": "overrides it to finish the running chunks first",
        "faust.transport.base:Transport(url, app)": "makes its own transport",
        "mode.services:Service._crash": "overrides it to stop the worker with one line",
    },
    "streams/worker/fetcher.py": {
        "aiokafka.client:AIOKafkaClient.send": "sends a heartbeat to ask who owns a partition",
        "aiokafka.client:ConnectionGroup.COORDINATION": "as above, on this connection",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._client": (
            "forbids that asking about a topic creates it; and sends a heartbeat"
        ),
        "aiokafka.consumer.consumer:AIOKafkaConsumer._closed": "fetches nothing once it is set",
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.on_start": (
            "overrides it: what is fetched afterwards is read within bounds"
        ),
        "aiokafka.consumer.consumer:AIOKafkaConsumer._coordinator": (
            "asks it for a rebalance, and for what a heartbeat says"
        ),
        "aiokafka.consumer.consumer:AIOKafkaConsumer._fetch_max_wait_ms": (
            "sets how long the broker holds a fetch that finds nothing"
        ),
        "aiokafka.consumer.consumer:AIOKafkaConsumer._fetcher": "takes chunks out of it",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._subscription": "asks it what is assigned",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._partition_assignment_strategy": (
            "sets how the group assigns its partitions"
        ),
        "aiokafka.consumer.fetcher:FetchError.check_raise": "raises by it what a fetch failed with",
        "aiokafka.consumer.fetcher:FetchResult.getall": "takes the records of a chunk by it",
        "aiokafka.consumer.fetcher:FetchResult.has_more": "checks whether a fetch has records left",
        "aiokafka.consumer.fetcher:Fetcher._closed": "fetches nothing once it is set",
        "aiokafka.consumer.fetcher:Fetcher._create_fetch_waiter": "waits for records by it",
        "aiokafka.consumer.fetcher:Fetcher._fetch_waiters": "ends the waits for records",
        "aiokafka.consumer.fetcher:Fetcher._notify": (
            "ends the waits for records, and lets the fetcher fetch again"
        ),
        "aiokafka.consumer.fetcher:Fetcher._records": "takes chunks out of it",
        "aiokafka.consumer.fetcher:Fetcher._subscriptions": "reads positions from it",
        "aiokafka.consumer.fetcher:Fetcher._wait_consume_future": "lets the fetcher fetch again",
        "aiokafka.consumer.group_coordinator:GroupCoordinator.coordinator_id": (
            "sends a heartbeat to this broker"
        ),
        "aiokafka.consumer.group_coordinator:GroupCoordinator.generation": "says it in a heartbeat",
        "aiokafka.consumer.group_coordinator:GroupCoordinator.group_id": "says it in a heartbeat",
        "aiokafka.consumer.group_coordinator:GroupCoordinator.member_id": "says it in a heartbeat",
        "aiokafka.consumer.group_coordinator:GroupCoordinator.request_rejoin": (
            "asks for a rebalance by it"
        ),
        "aiokafka.consumer.subscription_state:Assignment.state_value": "reads positions by it",
        "aiokafka.consumer.subscription_state:Subscription.assignment": "reads positions from it",
        "aiokafka.consumer.subscription_state:SubscriptionState.fetch_context": (
            "fetches inside of it, which counts as polling"
        ),
        "aiokafka.consumer.subscription_state:SubscriptionState.is_assigned": (
            "drops what was fetched of partitions that were revoked, and does not start those"
        ),
        "aiokafka.consumer.subscription_state:SubscriptionState.reassignment_in_progress": (
            "takes no chunks during a rebalance, and starts no partition again"
        ),
        "aiokafka.consumer.subscription_state:SubscriptionState.subscription": (
            "reads positions from it"
        ),
        "aiokafka.consumer.subscription_state:SubscriptionState.wait_for_assignment": (
            "waits for the end of a rebalance"
        ),
        "aiokafka.consumer.subscription_state:TopicPartitionState.has_valid_position": (
            "checks whether a position can be read"
        ),
        "aiokafka.consumer.subscription_state:TopicPartitionState.lso": (
            "notes how far a partition can be read, for its lag"
        ),
        "aiokafka.consumer.subscription_state:TopicPartitionState.position": (
            "reads where a chunk begins and ends"
        ),
        "aiokafka.protocol.group:HeartbeatRequest(group, generation_id, member_id)": (
            "asks the group's coordinator by it who owns a partition"
        ),
        "aiokafka.coordinator.assignors.sticky.sticky_assignor:StickyPartitionAssignor": (
            "lets partitions stay with the worker that has them"
        ),
        "faust.transport.consumer:ConsumerThread.app": "reads settings and the failure from it",
        "faust.transport.consumer:ConsumerThread.consumer": "asks it which partitions are active",
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.__post_init__": (
            "overrides it to add an attribute"
        ),
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._consumer": (
            "stops it, unless it was never made"
        ),
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_consumer": (
            "overrides it to change settings that Faust fixes"
        ),
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._ensure_consumer": (
            "gets aiokafka's consumer by it"
        ),
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.getmany": (
            "overrides it to return chunks"
        ),
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.logger": (
            "sets whose lines Faust's are"
        ),
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.on_thread_stop": (
            "overrides it to leave the group in bounded time"
        ),
        "mode.threads:QueueServiceThread.call_thread": (
            "overrides it: a call waits for no other one that the consumer's thread has"
        ),
        "mode.utils.futures:maybe_async": "calls what Faust's own `call_thread` may call",
        "mode.threads:ServiceThread.thread_loop": "fetches in the consumer's thread",
    },
    "streams/worker/host.py": {
        "faust.types.app:AppT.consumer_generation_id": "asks for it, to stamp chunks with it",
        "faust.app.base:App.rebalancing": "asks for it, to commit nothing during a rebalance",
    },
    "streams/worker/logs.py": {
        "aiokafka.errors:NotEnoughReplicasError": "drops the warnings that name it",
        "aiokafka.producer": "drops warnings of its logger",
    },
    "streams/worker/process.py": {
        "faust.cli.worker:worker.on_worker_created": "replaces it: it prints a banner",
        "faust.worker:Worker.on_setup_root_logger": "overrides it: it changes the log's level",
        "faust.worker:Worker.spinner": "removes it: it writes escapes into logs",
        "faust.worker:Worker.on_first_start": "overrides it to check what the worker needs",
        "mode.services:Service.start": "overrides it to end with one line if it fails",
        "mode.worker:Worker._on_sigterm": "stops the worker by it",
        "mode.worker:Worker.execute_from_commandline": "overrides it to end with an exit code",
    },
    "streams/worker/transport.py": {
        "aiokafka.coordinator.assignors.sticky.sticky_assignor:"
        "StickyPartitionAssignor.on_generation_assignment": (
            "tells the assignor the generation, which aiokafka leaves out"
        ),
        "faust.serializers.schemas:Schema.loads_key": "overrides it: a chunk has no key",
        "faust.serializers.schemas:Schema.loads_value": "overrides it to hand on the chunk",
        "faust.transport.base:Transport.Consumer": "puts its own consumer there",
        "faust.transport.base:Transport.TransactionManager": "puts its own hook there",
        "faust.transport.consumer:Consumer._active_partitions": (
            "reads which partitions chunks may be taken from"
        ),
        "faust.transport.consumer:Consumer._drain_messages": (
            "overrides it to hand on one chunk per turn of the event loop"
        ),
        "faust.transport.consumer:Consumer.app": "reads the partitions from it",
        "faust.transport.consumer:Consumer.callback": "hands each chunk to Faust by it",
        "faust.transport.consumer:Consumer.can_resume_flow": "waits for the end of a rebalance",
        "faust.transport.consumer:Consumer.commit": (
            "overrides it to commit the partitions' positions"
        ),
        "faust.transport.consumer:Consumer.flow_active": "takes no chunks during a rebalance",
        "faust.transport.consumer:Consumer.getmany": "overrides it to yield chunks",
        "faust.transport.consumer:Consumer.perform_seek": (
            "overrides it to read on from the partitions' positions"
        ),
        "faust.transport.consumer:Consumer.resume_partitions": (
            "overrides it to leave out partitions that are not restored"
        ),
        "faust.transport.consumer:ThreadDelegateConsumer._thread": "fetches and commits by it",
        "faust.transport.consumer:ThreadDelegateConsumer.assignment": (
            "leaves partitions alone that are not assigned any more"
        ),
        "faust.transport.consumer:ThreadDelegateConsumer.seek_wait": "seeks by it",
        "faust.transport.consumer:TransactionManager.app": "reads the partitions from it",
        "faust.transport.consumer:TransactionManager.logger": "sets whose lines Faust's are",
        "faust.transport.consumer:TransactionManager.on_partitions_revoked": (
            "overrides it to let running chunks finish"
        ),
        "faust.transport.consumer:TransactionManager.on_rebalance": (
            "overrides it to take over what is assigned"
        ),
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread(consumer, loop, beacon)": (
            "makes its own thread"
        ),
        "faust.transport.drivers.aiokafka:Consumer._new_consumer_thread": (
            "overrides it to make its own thread"
        ),
        "faust.transport.drivers.aiokafka:Consumer.logger": "sets whose lines Faust's are",
        "faust.transport.drivers.aiokafka:Transport": "derives its own transport from it",
        "faust.types.transports:TPorTopicSet": "annotates what it overrides",
        "faust.types.tuples:ConsumerMessage(topic, partition, offset, timestamp, timestamp_type, "
        "headers, key, value, checksum, tp, generation_id)": "wraps each chunk in one",
    },
    "streams/worker/watchdog.py": {
        "aiokafka.consumer.consumer:AIOKafkaConsumer._coordinator": (
            "checks the tasks of the group membership"
        ),
        "aiokafka.consumer.consumer:AIOKafkaConsumer._fetcher": "checks the task that fetches",
        "aiokafka.consumer.consumer:AIOKafkaConsumer._subscription": (
            "checks whether a rebalance is in progress"
        ),
        "aiokafka.consumer.fetcher:Fetcher._fetch_task": "checks whether it has ended",
        "aiokafka.consumer.group_coordinator:GroupCoordinator._coordination_task": (
            "checks whether it has ended"
        ),
        "aiokafka.consumer.group_coordinator:GroupCoordinator._heartbeat_task": (
            "checks by it whether the worker is a member of its group"
        ),
        "aiokafka.consumer.group_coordinator:GroupCoordinator.check_errors": (
            "raises by it what the group failed with"
        ),
        "aiokafka.consumer.group_coordinator:GroupCoordinator.coordinator_id": (
            "checks whether the group's coordinator is known"
        ),
        "aiokafka.consumer.group_coordinator:GroupCoordinator.generation": (
            "checks by it whether joining the group makes progress"
        ),
        "aiokafka.consumer.group_coordinator:GroupCoordinator.group_id": "names it in its line",
        "aiokafka.consumer.subscription_state:SubscriptionState.reassignment_in_progress": (
            "checks whether a rebalance is in progress"
        ),
        "aiokafka.consumer.subscription_state:SubscriptionState.topics": (
            "asks for the ends of these topics"
        ),
    },
    "deploy/embedded/grants.py": {
        "aiokafka.admin.client:AIOKafkaAdminClient._send_request": (
            "sends a request that aiokafka's administrator does not offer"
        ),
        "aiokafka.protocol.admin:CreateAclsRequest": "creates ACLs with it",
    },
    "deploy/embedded/maven.py": {
        "jgo.constants:MAVEN_CENTRAL_URL": "downloads from there, unless a mirror is set",
    },
}
"""By file: name -> what for."""

PRIVATE_NAMES = tuple(
    PrivateName(name, used_in, purpose)
    for used_in, names in _USES.items()
    for name, purpose in names.items()
)
