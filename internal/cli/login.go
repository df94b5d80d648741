package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/internal/login"
	"sallyport/internal/outbound"
	"sallyport/internal/problem"
)

const (
	// loginTimeout bounds one exchange with an issuer.
	loginTimeout = 10 * time.Second
	// maxLoginAnswer bounds what an issuer answers, in bytes.
	maxLoginAnswer = 256 << 10
	// loginMargin is how long before its end a token is replaced: a command must not run out of it.
	loginMargin = 30 * time.Second
)

func (a *app) loginCommand() *cobra.Command {
	var s keptLogin
	var device bool
	c := &cobra.Command{
		Use: "login", Short: "Log in to a server, with an account at its issuer", Args: noArguments(),
		Long: `Log in to a server by an OpenID Connect issuer that it knows (server.toml, [[issuers]]). The address of a page is printed: open it in
a browser on this machine, or with --device in any browser, where you type the code. The token is kept in your configuration folder,
readable by you alone, used for this server by every command that has no other token, and renewed by itself. --token-file and
SALLYPORT_TOKEN_FILE go before it.`,
		Example: `  sallyport login --server https://events.example.com:8600 --issuer https://login.example.com/realms/main --client-id sallyport-cli
  sallyport login --device --issuer https://login.example.com/realms/main --client-id sallyport-cli`,
		PreRunE: func(*cobra.Command, []string) error {
			if s.Issuer == "" || s.ClientID == "" {
				return usage("name the issuer and what this program is called there: --issuer URL --client-id ID")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), s, device) },
	}
	flags := c.Flags()
	flags.StringVar(&s.Issuer, "issuer", "", "`URL` of the issuer, as in server.toml")
	flags.StringVar(&s.ClientID, "client-id", "", "`id` of this program at the issuer; it is a public client, without a secret")
	flags.StringSliceVar(&s.Scopes, "scope", []string{"openid"}, "what to ask for; add offline_access where that is needed to stay logged in")
	flags.StringVar(&s.Audience, "audience", "", "audience to ask for, where the issuer wants it")
	flags.StringVar(&s.CAFile, "issuer-ca-file", "", "`file` with the CA certificate of the issuer")
	flags.BoolVar(&s.IDToken, "id-token", false, "use the id token, where access tokens are not for others to read")
	flags.BoolVar(&device, "device", false, "log in by a code that is typed in a browser elsewhere")
	return c
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the login to a server", Args: noArguments(), Example: "  sallyport logout",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logout(cmd.Context()) },
	}
}

// loggedIn is the answer of login.
type loggedIn struct {
	Server  string    `json:"server"`
	Issuer  string    `json:"issuer"`
	Expires time.Time `json:"expires"`
	// Permitted says whether anything is permitted: a person can be known and have no role.
	Permitted bool `json:"permitted"`
}

func (a *app) login(ctx context.Context, s keptLogin, device bool) error {
	cfg, err := a.target()
	if err != nil {
		return err
	}
	if s.CAFile != "" {
		s.CAFile, err = filepath.Abs(s.CAFile)
		if err != nil {
			return err
		}
	}
	got, err := a.authorize(ctx, &s, device)
	if err != nil {
		return loginFailed(err)
	}
	s.take(got)
	cfg.Token, cfg.TokenFile = s.Token, ""
	permitted, err := accepted(ctx, cfg)
	if err != nil {
		return err
	}
	if err := a.changeLogins(func(all logins) { all[loginKey(cfg.Server)] = s }); err != nil {
		return err
	}
	a.say("logged in to %s", clean(cfg.Server))
	if !permitted {
		a.say("the server knows you, and gives you no role: ask its operator for a mapping in server.toml")
	}
	return a.show(loggedIn{Server: cfg.Server, Issuer: s.Issuer, Expires: s.Expires, Permitted: permitted}, func(io.Writer) {})
}

// authorize has the person log in.
func (a *app) authorize(ctx context.Context, s *keptLogin, device bool) (*login.Tokens, error) {
	is, closeClient, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer closeClient()
	if device {
		return is.Device(ctx, func(url, code string) { a.tell("open %s in a browser, and type the code %s", clean(url), clean(code)) })
	}
	return is.Browser(ctx, func(url string) { a.tell("open this page in a browser on this machine:\n%s", clean(url)) })
}

// tell says what a person must know to go on, also with --quiet.
func (a *app) tell(format string, args ...any) { fmt.Fprintf(a.env.Stderr, format+"\n", args...) }

// accepted asks the server whether it takes the token. A token that may do nothing is taken.
func accepted(ctx context.Context, cfg client.Config) (permitted bool, err error) {
	c, err := client.New(cfg)
	if err != nil {
		return false, err
	}
	defer c.Close()
	_, err = c.Status(ctx)
	if p, ok := errors.AsType[*client.Problem](err); ok {
		switch p.Code {
		case "access.denied":
			return false, nil
		case "access.unauthenticated":
			return false, problem.New(problem.Unauthenticated, "cli.login_not_accepted", "the issuer let you in, but the server does not take its token").
				WithHint("its server.toml must name this issuer and the audience of the token; try --audience or --id-token")
		}
	}
	return err == nil, err
}

func loginFailed(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return problem.New(problem.Unauthenticated, "cli.login_failed", "the log-in failed: %v", err).
		WithHint("see --issuer, --client-id and --scope; the issuer must allow this program, and the address http://127.0.0.1 with any port")
}

// open returns the issuer of a login.
func (s *keptLogin) open(ctx context.Context) (is *login.Issuer, done func(), err error) {
	// The person names the issuer: one in their own network is as good as another.
	cfg := outbound.Config{Private: true, Timeout: loginTimeout, MaxBytes: maxLoginAnswer}
	if s.CAFile != "" {
		pem, err := readBounded(s.CAFile, maxCertificate)
		if err != nil {
			return nil, nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("%s holds no certificate", s.CAFile)
		}
	}
	c, err := outbound.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	is, err = login.Open(ctx, login.Config{Issuer: s.Issuer, ClientID: s.ClientID, Scopes: s.Scopes, Audience: s.Audience, IDToken: s.IDToken}, c)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return is, c.Close, nil
}

// take notes what the issuer gave.
func (s *keptLogin) take(t *login.Tokens) {
	s.Token, s.Refresh, s.Expires = t.Token, t.Refresh, t.Expires.UTC()
}

// loginToken returns the token of the login to a server, renewed when it is about to end, or "" without a login.
func (a *app) loginToken(ctx context.Context, server string) (string, error) {
	all, err := a.logins()
	if err != nil {
		return "", err
	}
	s, ok := all[loginKey(server)]
	if !ok || time.Now().Before(s.Expires.Add(-loginMargin)) {
		return s.Token, nil
	}
	ended := problem.New(problem.Unauthenticated, "cli.login_ended", "your login to %s has ended", server).WithHint("log in again with `sallyport login`")
	if s.Refresh == "" {
		return "", ended
	}
	// The issuer may end the refresh token as it answers: an interrupted command must not lose the one that comes back.
	// What it takes is bounded all the same.
	got, err := s.renew(context.WithoutCancel(ctx))
	if errors.Is(err, login.ErrEnded) {
		// Another command may have used the refresh token in the meantime, and kept a new one.
		if all, err := a.logins(); err == nil && all[loginKey(server)].Refresh != s.Refresh && all[loginKey(server)].Token != "" {
			return all[loginKey(server)].Token, nil
		}
		return "", ended.WithCause(err)
	}
	if err != nil {
		return "", problem.New(problem.Unavailable, "cli.login_not_renewed", "your login to %s could not be renewed: %v", server, err).
			WithHint("try again; the issuer did not answer as it should")
	}
	s.take(got)
	return s.Token, a.changeLogins(func(all logins) { all[loginKey(server)] = s })
}

func (s *keptLogin) renew(ctx context.Context) (*login.Tokens, error) {
	is, done, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return is.Refresh(ctx, s.Refresh)
}

func (a *app) logout(ctx context.Context) error {
	cfg, err := a.target()
	if err != nil {
		return err
	}
	all, err := a.logins()
	if err != nil {
		return err
	}
	s, ok := all[loginKey(cfg.Server)]
	if !ok {
		a.say("there is no login to %s", clean(cfg.Server))
		return nil
	}
	// What is here goes first: if the issuer does not answer, the login is forgotten all the same.
	if err := a.changeLogins(func(all logins) { delete(all, loginKey(cfg.Server)) }); err != nil {
		return err
	}
	a.say("the login to %s is forgotten", clean(cfg.Server))
	if s.Refresh == "" {
		return nil
	}
	is, done, err := s.open(ctx)
	if err == nil {
		defer done()
		err = is.Revoke(ctx, s.Refresh)
	}
	if err != nil {
		a.say("the issuer was not told, so it ends by itself: %v", err)
	}
	return nil
}
