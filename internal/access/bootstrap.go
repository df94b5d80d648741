package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sallyport/api"
	"sallyport/internal/policy"
)

// madeByServer is who makes the tokens that no caller asked for.
const madeByServer = "server"

// Bootstrap sees that somebody can operate the server: when no valid token has the operator's role
// for the whole server, it makes one and writes it to file, readable by its owner alone. It
// reports whether it did.
//
// It never makes a second one: a file that was lost is not a reason, because whoever can remove a
// file must not get a token for it. Reissue is the way then.
func (t *Tokens) Bootstrap(ctx context.Context, file string) (made bool, err error) {
	for _, tok := range *t.byID.Load() {
		if operates(&tok.stored) {
			return false, nil
		}
	}
	if err := t.issue(ctx, file, "made by the server's first start"); err != nil {
		return false, err
	}
	return true, nil
}

// Reissue replaces the operator token that the server itself made, for an operator who lost it: a new
// one is in file, and earlier ones are revoked. It is for a person with access to the server's own
// files, asked for in so many words, never for a request over the network.
func (t *Tokens) Reissue(ctx context.Context, file string) error {
	before := *t.byID.Load()
	if err := t.issue(ctx, file, "made by the server to replace a lost one"); err != nil {
		return err
	}
	for id, tok := range before {
		if tok.stored.CreatedBy == madeByServer && operates(&tok.stored) {
			if err := t.Revoke(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// operates reports whether s is a valid token of an operator of the whole server.
func operates(s *storedToken) bool {
	return s.Role == string(policy.Operator) && s.Namespace == "" && len(s.EventTypes) == 0 &&
		s.Revoked == nil && time.Now().Before(s.Expires)
}

// issue makes an operator token and writes it to file.
func (t *Tokens) issue(ctx context.Context, file, description string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the operator token's file: %w", err)
	}
	// The file comes first: after a crash between the two, no token is valid that nobody has.
	id, text := newText()
	if err := writeNew(file, text+"\n"); err != nil {
		return fmt.Errorf("write the operator token's file: %w", err)
	}
	req := api.TokenRequest{Role: string(policy.Operator), Description: description}
	if _, err := t.create(ctx, madeByServer, req, firstLifetime, id, text); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

// writeNew writes a file that only its owner can read, and syncs it and its folder.
func writeNew(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
