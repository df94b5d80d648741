package cli

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/problem"
)

const (
	// devDir is where `dev` keeps everything, in the app's folder.
	devDir = ".sallyport"
	// readyName is where, inside devDir, `dev` leaves word of its server.
	readyName = "ready.json"
	// maxReady bounds that file in bytes; it has a URL and two paths.
	maxReady = 64 << 10
)

// connection says which server a command talks to.
type connection struct{ server, caFile, tokenFile, certFile, keyFile, namespace string }

func (c *connection) flags(f *pflag.FlagSet) {
	f.StringVar(&c.server, "server", "", "`URL` of the server (default: that of a running `sallyport dev` in this folder)")
	f.StringVar(&c.caFile, "ca-file", "", "`file` with the CA certificate of the server")
	f.StringVar(&c.tokenFile, "token-file", "", "`file` with the token")
	f.StringVar(&c.certFile, "cert-file", "", "`file` with a client certificate, where the server takes them; a token goes before it")
	f.StringVar(&c.keyFile, "key-file", "", "`file` with the key of the client certificate")
	f.StringVarP(&c.namespace, "namespace", "n", "", "`namespace` to work in (default \"default\")")
}

// namespace returns the one that a flag or the environment names, or "".
func (a *app) namespace() string {
	if a.conn.namespace != "" {
		return a.conn.namespace
	}
	return a.env.Getenv("SALLYPORT_NAMESPACE")
}

// target returns the server that is meant, from flags, the environment, and the file that `dev` leaves.
func (a *app) target() (client.Config, error) {
	first := func(flag, name string) string {
		if flag != "" {
			return flag
		}
		return a.env.Getenv(name)
	}
	cfg := client.Config{
		Server: first(a.conn.server, "SALLYPORT_SERVER"), CAFile: first(a.conn.caFile, "SALLYPORT_CA_FILE"),
		TokenFile: first(a.conn.tokenFile, "SALLYPORT_TOKEN_FILE"), Namespace: a.namespace(),
		CertFile: first(a.conn.certFile, "SALLYPORT_CERT_FILE"), KeyFile: first(a.conn.keyFile, "SALLYPORT_KEY_FILE"),
	}
	if cfg.TokenFile == "" {
		cfg.Token = a.env.Getenv("SALLYPORT_TOKEN")
	}
	if cfg.Server == "" {
		ready, err := findReady()
		if err != nil {
			return cfg, err
		}
		cfg.Server = ready.URL
		if cfg.CAFile == "" {
			cfg.CAFile = ready.CAFile
		}
		if cfg.TokenFile == "" && cfg.Token == "" {
			cfg.TokenFile = ready.TokenFile
		}
	}
	return cfg, nil
}

// resolve is target, with the token of a login when no other is named.
func (a *app) resolve(ctx context.Context) (client.Config, error) {
	cfg, err := a.target()
	if err != nil || cfg.TokenFile != "" || cfg.Token != "" || cfg.CertFile != "" {
		return cfg, err
	}
	cfg.Token, err = a.loginToken(ctx, cfg.Server)
	return cfg, err
}

// connect returns a client of the server the user means.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	cfg, err := a.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if cfg.Token == "" && cfg.TokenFile == "" && cfg.CertFile == "" {
		return nil, problem.New(problem.Unauthenticated, "cli.no_token", "no token is named for %s", cfg.Server).
			WithHint("name yours with --token-file, or log in with `sallyport login`")
	}
	return open(cfg)
}

// connectNow is connect for who cannot wait: a login whose token has ended is not renewed.
func (a *app) connectNow() (*client.Client, error) {
	cfg, err := a.target()
	if err != nil {
		return nil, err
	}
	if cfg.TokenFile == "" && cfg.Token == "" && cfg.CertFile == "" {
		all, err := a.logins()
		if err != nil {
			return nil, err
		}
		cfg.Token = all[loginKey(cfg.Server)].Token
	}
	return open(cfg)
}

// open returns a client, and says which of the settings cannot be used.
func open(cfg client.Config) (*client.Client, error) {
	if cfg.CAFile != "" {
		if _, err := os.Stat(cfg.CAFile); errors.Is(err, fs.ErrNotExist) {
			return nil, problem.New(problem.NotFound, "cli.no_file", "there is no CA file %s", cfg.CAFile).
				WithHint("name the server's CA with --ca-file; the server's log says where it is")
		}
	}
	if cfg.TokenFile != "" {
		if _, err := os.Stat(cfg.TokenFile); errors.Is(err, fs.ErrNotExist) {
			return nil, problem.New(problem.Unauthenticated, "cli.no_token", "there is no token file %s", cfg.TokenFile).
				WithHint("name yours with --token-file, or have an operator make one with `sallyport token create`")
		}
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, problem.New(problem.Invalid, "cli.bad_connection", "%v", err).
			WithHint("--server is a URL, --ca-file has the server's CA and --token-file a token; `sallyport doctor` looks at each")
	}
	return c, nil
}

// findReady looks for the word of a running `dev` in this folder and those above.
func findReady() (*api.Ready, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		path := filepath.Join(dir, devDir, readyName)
		ready, err := readReady(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return ready, err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil, problem.New(problem.Unavailable, "cli.no_server", "no server is named, and none runs for this folder").
				WithHint("start one with `sallyport dev`, or name one with --server, --ca-file and --token-file")
		}
		dir = parent
	}
}

// readReady reads a file that says where a server is, and decides whether to believe it. It may have
// come with a folder from somebody else, who would be sent this user's token: so it must be a file that
// nobody but this user can write, and name a server on this machine.
func readReady(path string) (*api.Ready, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	refuse := func(why string) error {
		return problem.New(problem.Invalid, "cli.untrusted_context", "%s is not believed: %s", path, why).
			WithHint("if it is not yours, remove it; name the server with --server, --ca-file and --token-file")
	}
	const others = 0o077
	if !info.Mode().IsRegular() || info.Mode().Perm()&others != 0 || !ownedByUser(info) {
		return nil, refuse("it is not a file that this user alone can read and write")
	}
	text, err := readBounded(path, maxReady)
	if err != nil {
		return nil, err
	}
	var r api.Ready
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, refuse("it is damaged")
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, refuse("it is damaged")
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback() && !ip.IsUnspecified()) {
		return nil, refuse("it names a server on another machine")
	}
	return &r, nil
}
