"""The command line: ``app`` joins the command modules, ``context`` does what they ask for, ``show`` prints it."""
