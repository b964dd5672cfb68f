"""What panes draw from; keys, pages, ports."""
