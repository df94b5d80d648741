package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/problem"
)

const (
	loginsName = "logins.json"
	// maxLogins bounds that file in bytes.
	maxLogins = 4 << 20
)

// keptLogin is a login to one server, as it is kept.
type keptLogin struct {
	Issuer   string    `json:"issuer"`
	ClientID string    `json:"client_id"`
	Scopes   []string  `json:"scopes,omitempty"`
	Audience string    `json:"audience,omitempty"`
	CAFile   string    `json:"ca_file,omitempty"`
	IDToken  bool      `json:"id_token,omitempty"`
	Token    string    `json:"token"`
	Refresh  string    `json:"refresh,omitempty"`
	Expires  time.Time `json:"expires"`
}

// logins are all logins, by server.
type logins map[string]keptLogin

// loginKey names a server: two spellings of one URL are one login, and a token never goes to another host or port.
func loginKey(server string) string { return strings.ToLower(strings.TrimRight(server, "/")) }

// loginsFile returns where logins are kept.
func (a *app) loginsFile() (string, error) {
	dir := a.env.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home := a.env.Getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", errors.New("there is no folder for your configuration: neither HOME nor XDG_CONFIG_HOME is set")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "sallyport", loginsName), nil
}

// logins reads the logins. A file that others can read or write is not believed: whoever wrote it would have this user's
// commands sent with a token of theirs, and whoever reads it has the user's.
func (a *app) logins() (logins, error) {
	path, err := a.loginsFile()
	if err != nil {
		return logins{}, nil //nolint:nilerr // without a folder there are no logins
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return logins{}, nil
	}
	if err != nil {
		return nil, err
	}
	refuse := func(why string) error {
		return problem.New(problem.Invalid, "cli.untrusted_context", "%s is not believed: %s", path, why).WithHint("remove it, and log in again")
	}
	const others = 0o077
	if !info.Mode().IsRegular() || info.Mode().Perm()&others != 0 || !ownedByUser(info) {
		return nil, refuse("it is not a file that this user alone can read and write")
	}
	text, err := readBounded(path, maxLogins)
	if err != nil {
		return nil, err
	}
	all := logins{}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, refuse("it is damaged")
	}
	return all, nil
}

// changeLogins changes the logins, as they are now.
func (a *app) changeLogins(change func(logins)) error {
	all, err := a.logins()
	if err != nil {
		return err
	}
	change(all)
	path, err := a.loginsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder for logins: %w", err)
	}
	text, err := json.Marshal(all, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("write the logins: %w", err)
	}
	return writePrivate(path, append(text, '\n'))
}
