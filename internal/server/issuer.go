package server

import (
	"context"
	"fmt"
	"net"
	"time"

	"sallyport/api"
	"sallyport/internal/ident"
	"sallyport/internal/issuer"
)

// openIssuer opens the issuer of identity tokens for functions.
func (s *server) openIssuer(ctx context.Context) error {
	const name = "issuer"
	bucket, err := s.bucket(ctx, "", name)
	if err != nil {
		return err
	}
	sealer, err := s.keys.Sealer(ctx, "", name+"/keys")
	if err != nil {
		return err
	}
	if s.issuer, err = issuer.Open(ctx, bucket, sealer, s.log); err != nil {
		return fmt.Errorf("open the issuer of identities: %w", err)
	}
	if url := s.cfg.Settings.Identity.Issuer; url != "" {
		return s.issuer.Announce(url)
	}
	return nil
}

// announceIssuer names the issuer by the address that the server listens at, when the settings do not name it and it is one that
// others can ask for.
func (s *server) announceIssuer(addr net.Addr) error {
	tcp, ok := addr.(*net.TCPAddr)
	if s.cfg.Settings.Identity.Issuer != "" || !ok || tcp.IP.IsUnspecified() {
		return nil
	}
	host, _, err := net.SplitHostPort(s.cfg.Settings.Listen)
	if err != nil {
		return fmt.Errorf("read the address to listen at: %w", err)
	}
	return s.issuer.Announce("https://" + net.JoinHostPort(host, fmt.Sprint(tcp.Port)))
}

// mint makes an identity token for a revision of a function.
func (s *server) mint(ctx context.Context, ns ident.Namespace, fn ident.FunctionName, revision int, audience string) (string, time.Time, error) {
	return s.issuer.Token(ctx, issuer.Caller{Namespace: ns, Function: fn, Revision: revision}, audience)
}

// ownIssuer is the issuer of a server that may take its own tokens, as those of any issuer that its settings name.
type ownIssuer struct{ s *server }

// Status returns what is published.
func (o ownIssuer) Status() *api.Issuer {
	url, keys := o.s.issuer.Status()
	out := &api.Issuer{URL: url, Keys: []api.IssuerKey{}}
	for i := range keys {
		k := &keys[i]
		one := api.IssuerKey{ID: k.ID, State: string(k.State), Created: k.Created}
		if !k.Until.IsZero() {
			one.Until = &k.Until
		}
		out.Keys = append(out.Keys, one)
	}
	return out
}

// Rotate makes a new key. What a revoked one signed is refused here at once, and not when the published keys are read again.
func (o ownIssuer) Rotate(ctx context.Context, how api.IssuerRotation) (*api.Issuer, error) {
	revoked, err := o.s.issuer.Rotate(ctx, how.RevokeOld)
	if err != nil {
		return nil, err
	}
	out := o.Status()
	out.Revoked = revoked
	for _, is := range o.s.issuers {
		if is.URL() == out.URL {
			is.Revoke(revoked...)
		}
	}
	return out, nil
}
