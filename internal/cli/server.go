package cli

import (
	"github.com/spf13/cobra"

	"sallyport/internal/manifest"
	"sallyport/internal/server"
)

type serverFlags struct {
	config, dataDir, listen, readyFile, debugSocket string
	newToken                                        bool
}

func (a *app) serverCommand() *cobra.Command {
	var f serverFlags
	c := &cobra.Command{
		Use: "server", Short: "Run a server", Args: noArguments(),
		Long: `Run a server. It listens on 127.0.0.1:8600 unless told otherwise, always with TLS 1.3: without a certificate in
server.toml it makes a CA and a certificate in the data directory. The first start writes an operator token to a file there.`,
		Example: "  sallyport server --data-dir /var/lib/sallyport\n  sallyport server --config /etc/sallyport/server.toml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := f.settings()
			if err != nil {
				return err
			}
			return server.Run(cmd.Context(), server.Config{
				Settings: settings, Mode: server.ModeServer, Version: a.env.Version, Log: a.env.Stderr, DebugSocket: f.debugSocket,
				NewOperatorToken: f.newToken, WorkerArgs: []string{workerCommand},
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.config, "config", "", "`file` with settings, a server.toml")
	flags.StringVar(&f.dataDir, "data-dir", "", "`folder` for everything the server keeps")
	flags.StringVar(&f.listen, "listen", "", "`address` to listen on, host:port")
	flags.StringVar(&f.readyFile, "ready-file", "", "`file` to write once the server is ready")
	flags.BoolVar(&f.newToken, "new-operator-token", false, "replace the server's own operator token, for an operator who lost it")
	flags.StringVar(&f.debugSocket, "debug-socket", "", "Unix socket that serves profiles to its owner")
	_ = flags.MarkHidden("debug-socket") // the flag is there
	return c
}

// settings reads server.toml, and lets flags go before it.
func (f *serverFlags) settings() (*manifest.Server, error) {
	s := manifest.DefaultServer()
	if f.config != "" {
		text, err := readBounded(f.config, manifest.MaxBytes)
		if err != nil {
			return nil, err
		}
		if s, err = manifest.ParseServer(f.config, text); err != nil {
			return nil, err
		}
	}
	for _, v := range []struct {
		to   *string
		flag string
	}{{&s.DataDir, f.dataDir}, {&s.Listen, f.listen}, {&s.ReadyFile, f.readyFile}} {
		if v.flag != "" {
			*v.to = v.flag
		}
	}
	return s, nil
}
