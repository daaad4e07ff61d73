"""What is shipped, with the tools that ship it: `./run test --shipping`."""
