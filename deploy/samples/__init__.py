"""Sample data: `commands` of made-up users, and `poison`: records that no worker can decode."""
