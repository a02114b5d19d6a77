"""A broker of messages for several processes of Milvus: the one that librdkafka has for tests, without Kafka.

It prints its address, keeps some megabytes of each topic in memory, and ends when it is killed.
"""

import signal

if __name__ == "__main__":
    from confluent_kafka import Producer  # which only `make milvus` installs; doctests import every module

    producer = Producer({"test.mock.num.brokers": 1})
    [broker] = producer.list_topics(timeout=60).brokers.values()
    print(f"{broker.host}:{broker.port}", flush=True)
    signal.pause()
