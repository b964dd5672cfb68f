"""State that panes draw from; keys, pages, ports."""
