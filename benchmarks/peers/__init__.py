"""The programs that ours is measured against, and how they are started.

- Deciding: `plain_loop`, `faust_agent` and `quix_deciding`, which share the decisions in `rules`,
  and `kafka_streams`, which compiles and runs `java/`.
- Projecting and rebuilding: `bulk_loop`, `quix_projecting`.
- Searching: `pg_trgm`, on a server of `postgres`.
- Recovery: `faust_table`.

`extra` checks that the packages which some of them need are installed.
"""
