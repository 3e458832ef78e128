//! An MQTT broker for Linux.
