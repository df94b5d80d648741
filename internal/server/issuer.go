package server

import (
	"context"
	"fmt"
	"net"
	"time"

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
