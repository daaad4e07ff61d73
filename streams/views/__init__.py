"""The read side: projects events into views, rebuilds views, lets queries wait for writes."""
