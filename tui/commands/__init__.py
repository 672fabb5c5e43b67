"""The subcommands of `bbtui`, a file for each group. They import what is heavy inside functions."""
