"""One module a command of `omad`, each with `main(arguments) -> exit code`."""
