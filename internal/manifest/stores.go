package manifest

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/internal/ident"
)

// SecretStore is another store that one namespace may read secrets from.
type SecretStore struct {
	// Kind is ident.StoreVault or ident.StoreKeyVault.
	Kind      string
	Namespace ident.Namespace
	URL       string
	// Prefix begins the names of the secrets that the namespace may read.
	Prefix string
	// TokenFile has the credential. For Key Vault, TokenURL, ClientID and ClientSecretFile may be there in its place.
	TokenFile                            string
	TokenURL, ClientID, ClientSecretFile string
	// VaultNamespace is that of Vault Enterprise and OpenBao.
	VaultNamespace string
	CAFile         string
	// Private says that it may be at a loopback or private address.
	Private bool
	TTL     time.Duration
}

// Limits of other stores.
const (
	maxSecretStores = 100
	minSecretTTL    = time.Second
	maxSecretTTL    = time.Hour
	maxStoreText    = 500 // bytes
)

func (t *table) secretStores() []SecretStore {
	var out []SecretStore
	for _, st := range t.each("secret_stores", maxSecretStores) {
		s := st.secretStore()
		if slices.ContainsFunc(out, func(o SecretStore) bool { return o.Namespace == s.Namespace && o.Kind == s.Kind }) {
			st.fault("namespace", "this namespace has a store of this kind already")
		}
		out = append(out, s)
	}
	return out
}

func (t *table) secretStore() SecretStore {
	defer t.done()
	s := SecretStore{TTL: 5 * time.Minute}
	t.need("kind", `the store has no kind; want "vault" or "keyvault"`)
	t.need("namespace", "the store has no namespace: no other than the one that is named here may read from it")
	t.need("url", "the store has no url")
	t.need("prefix", "the store has no prefix: it bounds what the namespace may read")
	t.oneOf("kind", &s.Kind, ident.StoreVault, ident.StoreKeyVault)
	if text := t.text("namespace"); text != "" {
		ns, err := ident.ParseNamespace(text)
		if err != nil {
			t.fault("namespace", "%s", words(err))
		}
		s.Namespace = ns
	}
	s.URL = t.storeURL("url")
	if s.Prefix = t.text("prefix"); len(s.Prefix) > maxStoreText || s.Kind == ident.StoreVault && s.Prefix != "" && !strings.HasSuffix(s.Prefix, "/") {
		t.fault("prefix", `want the beginning of a path that ends in a slash, such as "kv/shop/"`)
	}
	for key, to := range map[string]*string{
		"token_file": &s.TokenFile, "client_id": &s.ClientID, "client_secret_file": &s.ClientSecretFile, "vault_namespace": &s.VaultNamespace, "ca_file": &s.CAFile,
	} {
		if *to = t.text(key); len(*to) > maxStoreText {
			t.fault(key, "longer than %d bytes", maxStoreText)
		}
	}
	if t.has("token_url") {
		s.TokenURL = t.storeURL("token_url")
	} else {
		t.known = append(t.known, "token_url")
	}
	t.truth("private_network", &s.Private)
	t.duration("ttl", &s.TTL, minSecretTTL, maxSecretTTL)
	application := s.TokenURL != "" || s.ClientID != "" || s.ClientSecretFile != ""
	switch {
	case application && s.Kind == ident.StoreVault:
		t.d.fault(t.n.key, "token_url, client_id and client_secret_file are for a Key Vault; Vault takes a token_file")
	case application && (s.TokenURL == "" || s.ClientID == "" || s.ClientSecretFile == "" || s.TokenFile != ""):
		t.d.fault(t.n.key, "token_url, client_id and client_secret_file come together, without token_file")
	case !application && s.TokenFile == "":
		t.d.fault(t.n.key, "the store has no token_file: the server has nothing to show to it")
	}
	if strings.ContainsAny(s.VaultNamespace, "\r\n") {
		t.fault("vault_namespace", "has a line break")
	}
	return s
}

func (t *table) storeURL(key string) string {
	s := t.text(key)
	u, err := url.Parse(s)
	if s != "" && (err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(s, "#?") || len(s) > maxStoreText) {
		t.fault(key, "want a URL of the form https://host/path")
	}
	return s
}
