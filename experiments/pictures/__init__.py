"""Pictures of the docs that several runs make together."""
