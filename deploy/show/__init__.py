"""What a person looks at: traces, dead letters, logs."""
