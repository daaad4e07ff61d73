"""What `cqrs top` shows: answers of workers, what follows from them, and the screen."""
