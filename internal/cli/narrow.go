package cli

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/internal/narrow"
	"sallyport/internal/problem"
)

// maxTokenFile bounds a file with a token, in bytes.
const maxTokenFile = 64 << 10

func (a *app) tokenNarrow() *cobra.Command {
	var c narrow.Caveats
	var addresses []string
	var expires time.Duration
	var file string
	cmd := &cobra.Command{
		Use: "narrow", Short: "Make a narrower token of yours, without the server", Args: noArguments(),
		Long: `Make a token of yours that may do less, to hand on. The server is not asked, and need not be told: it sees what the token may do
by the token itself. What you make can be narrowed again and never widened, cannot make tokens, and ends at once when the token that it
was made of is revoked.

With --type it publishes these types, and does nothing else.`,
		Example: `  sallyport token narrow --type 'order.*' --expires-in 1h --out courier.token
  sallyport token narrow --action readEvents --action readLogs --address 10.0.0.0/8`,
		RunE: func(*cobra.Command, []string) error {
			for _, text := range addresses {
				p, err := network(text)
				if err != nil {
					return err
				}
				c.Addresses = append(c.Addresses, p)
			}
			if expires != 0 {
				if expires < time.Second {
					return usage("--expires-in wants a duration such as 1h")
				}
				c.Expires = time.Now().Add(expires).Unix()
			}
			if err := c.Validate(); err != nil {
				return usage("%v; say what the token may do with --type, --action, --address or --expires-in", err)
			}
			return a.narrow(c, file)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&c.Types, "type", nil, "publish only these types; `order.*` is all that begin so")
	flags.StringSliceVar(&c.Actions, "action", nil, "only these actions, such as publish, invoke, readEvents, readLogs, readStatus")
	flags.StringSliceVar(&addresses, "address", nil, "only from this address or `network`, such as 10.0.0.0/8")
	flags.DurationVar(&expires, "expires-in", 0, "end after this time, such as 1h")
	flags.StringVar(&file, "out", "", "write it to this new `file`, readable by you alone")
	return cmd
}

// network reads an address or a network.
func network(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		return netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p != p.Masked() {
		return netip.Prefix{}, usage("--address wants an address or a network such as 10.0.0.0/8, not %s", clean(text))
	}
	return p, nil
}

// narrow makes the token and hands it over.
func (a *app) narrow(c narrow.Caveats, file string) error {
	text, err := a.ownToken()
	if err != nil {
		return err
	}
	out, err := narrow.Narrow(text, c)
	if err != nil {
		return problem.New(problem.Invalid, "cli.not_narrowed", "the token cannot be narrowed: %v", err).
			WithHint("at most %d caveats in all, and only tokens of the server's own", narrow.MaxCaveats)
	}
	if file == "" {
		return a.show(narrowedToken{Text: out}, func(w io.Writer) { fmt.Fprintln(w, out) })
	}
	f, err := newTokenFile(file)
	if err != nil {
		return err
	}
	_, err = f.WriteString(out + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	a.say("narrowed token written to %s", clean(file))
	return nil
}

// narrowedToken is the answer of token narrow.
type narrowedToken struct {
	Text string `json:"text"`
}

// ownToken returns the text of the token that a command would use.
func (a *app) ownToken() (string, error) {
	cfg, err := a.credentials()
	if err != nil {
		return "", err
	}
	if cfg.TokenFile == "" {
		return strings.TrimSpace(cfg.Token), nil
	}
	text, err := readBounded(cfg.TokenFile, maxTokenFile)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// credentials is resolve for a command that talks to no server: it needs a token, and no server.
func (a *app) credentials() (cfg struct{ Token, TokenFile string }, err error) {
	cfg.TokenFile = a.conn.tokenFile
	if cfg.TokenFile == "" {
		cfg.TokenFile = a.env.Getenv("SALLYPORT_TOKEN_FILE")
	}
	if cfg.TokenFile == "" {
		cfg.Token = a.env.Getenv("SALLYPORT_TOKEN")
	}
	if cfg.TokenFile != "" || cfg.Token != "" {
		return cfg, nil
	}
	ready, err := findReady()
	if err != nil {
		return cfg, problem.New(problem.Unauthenticated, "cli.no_token", "no token is named").WithHint("name yours with --token-file")
	}
	cfg.TokenFile = ready.TokenFile
	return cfg, nil
}
