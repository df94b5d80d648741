// Command sallyport is the server, its local development mode and its command line.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"sallyport/internal/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	// Nothing of ours uses the standard logger. Libraries do, with bytes in it that a service sent (net/http: what
	// comes on an idle connection), and those are for no log.
	log.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal ends in order, the second at once
	code := cli.Main(ctx, cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version,
	})
	stop()
	os.Exit(code)
}
