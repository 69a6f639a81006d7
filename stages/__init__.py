"""One file per DVC stage: wiring only. A stage reads its sections, calls the rooms and publishes its artifact."""
