"""The floor: vocabulary and mathematics. No Kafka, no HTTP, no clock, no environment."""
