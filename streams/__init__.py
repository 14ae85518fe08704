"""Kafka's side: the only place that imports faust. Worker, topics, record and replay, brokers."""
