package ident

import (
	"fmt"
	"strconv"
	"strings"
)

// SecretName names a secret of the server's own within its namespace.
type SecretName string

// ParseSecretName parses the name of a secret.
func ParseSecretName(s string) (SecretName, error) { return SecretName(s), checkName("secret", s) }

// The stores that a reference can name.
const (
	// StoreOwn is the server's own store of secrets.
	StoreOwn = "secret"
	// StoreVault is a HashiCorp Vault or OpenBao, its key-value engine of version 2.
	StoreVault = "vault"
	// StoreKeyVault is an Azure Key Vault.
	StoreKeyVault = "keyvault"
)

// Versions that are called by their state.
const (
	VersionCurrent  = ""
	VersionPrevious = "previous"
	VersionPending  = "pending"
)

// MaxSecretRef bounds a reference, in bytes: it stands in manifests, logs and policies.
const MaxSecretRef = 256

// MaxSecretVersion is the highest number of a version.
const MaxSecretVersion = 1_000_000_000

// SecretRef names a secret and a version of it: "secret:stripe-key", "secret:stripe-key@previous", "secret:stripe-key@3",
// "vault:kv/shop/stripe#key@3", "keyvault:stripe-key@0123456789abcdef0123456789abcdef". It is comparable.
type SecretRef struct {
	// Store is StoreOwn, StoreVault or StoreKeyVault.
	Store string
	// Name is the secret's: of StoreVault the path, whose first part is the mount.
	Name string
	// Field is that of a secret of StoreVault, which has several; else "".
	Field string
	// Version is VersionCurrent, VersionPrevious, VersionPending or what the store calls it.
	Version string
}

// ParseSecretRef parses a reference.
func ParseSecretRef(s string) (SecretRef, error) {
	if len(s) > MaxSecretRef {
		return SecretRef{}, fmt.Errorf("%w: the reference to a secret is %d bytes long, at most %d are allowed", ErrMalformed, len(s), MaxSecretRef)
	}
	store, rest, found := strings.Cut(s, ":")
	if !found {
		return SecretRef{}, fmt.Errorf(`%w: want a reference to a secret, such as "secret:stripe-key", not %q`, ErrMalformed, clip(s))
	}
	r := SecretRef{Store: store, Name: rest}
	if name, version, ok := strings.Cut(rest, "@"); ok {
		if r.Name, r.Version = name, version; version == "" {
			return SecretRef{}, fmt.Errorf("%w: the reference %q has no version after @", ErrMalformed, clip(s))
		}
	}
	var err error
	switch store {
	case StoreOwn:
		err = r.checkOwn()
	case StoreVault:
		err = r.checkVault()
	case StoreKeyVault:
		err = r.checkKeyVault()
	default:
		err = fmt.Errorf(`%w: there is no kind of secrets %q; want "secret:NAME", "vault:MOUNT/PATH#FIELD" or "keyvault:NAME"`, ErrMalformed, clip(store))
	}
	if err != nil {
		return SecretRef{}, err
	}
	return r, nil
}

func (r *SecretRef) checkOwn() error {
	if _, err := ParseSecretName(r.Name); err != nil {
		return err
	}
	switch r.Version {
	case VersionCurrent, VersionPrevious, VersionPending:
		return nil
	}
	return checkVersionNumber(r.Version)
}

// checkVersionNumber accepts a number from 1 on, in the one way to write it.
func checkVersionNumber(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 || n > MaxSecretVersion || strconv.FormatUint(n, 10) != s {
		return fmt.Errorf(`%w: the version %q of a secret; want a number, "previous" or "pending"`, ErrMalformed, clip(s))
	}
	return nil
}

func (r *SecretRef) checkVault() error {
	path, field, _ := strings.Cut(r.Name, "#")
	r.Name, r.Field = path, field
	if field == "" || !plain(field) {
		return fmt.Errorf(`%w: a reference to Vault names a field, as in "vault:kv/shop/stripe#key"`, ErrMalformed)
	}
	parts := strings.Split(path, "/")
	if len(parts) < 2 {
		return fmt.Errorf(`%w: a reference to Vault names the mount and the path, as in "vault:kv/shop/stripe#key"`, ErrMalformed)
	}
	for _, p := range parts {
		if !plain(p) {
			return fmt.Errorf("%w: the part %q of a path in Vault; want letters, digits and . _ -, beginning with a letter or digit", ErrMalformed, clip(p))
		}
	}
	if r.Version != "" {
		return checkVersionNumber(r.Version)
	}
	return nil
}

func (r *SecretRef) checkKeyVault() error {
	if len(r.Name) > 127 || !plain(r.Name) || strings.ContainsAny(r.Name, "._") {
		return fmt.Errorf("%w: the name %q of a secret in a Key Vault; want letters, digits and hyphens", ErrMalformed, clip(r.Name))
	}
	if r.Version == "" {
		return nil
	}
	if len(r.Version) != 32 || strings.Trim(r.Version, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: the version %q of a secret in a Key Vault; want 32 hexadecimal digits", ErrMalformed, clip(r.Version))
	}
	return nil
}

// plain reports whether s can stand in a path as it is, and means itself there.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return s != ""
}

// Own reports whether the secret is in the server's own store.
func (r SecretRef) Own() bool { return r.Store == StoreOwn }

// Secret returns what policies call the secret: its name, or with the store before it when that is another's.
func (r SecretRef) Secret() string {
	if r.Own() {
		return r.Name
	}
	return r.Store + ":" + r.Name
}

// String returns the reference as ParseSecretRef reads it.
func (r SecretRef) String() string {
	s := r.Store + ":" + r.Name
	if r.Field != "" {
		s += "#" + r.Field
	}
	if r.Version != "" {
		s += "@" + r.Version
	}
	return s
}
