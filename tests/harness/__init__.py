"""What the fault suite and the other tests stand on: traffic, crash points, a proxy."""
