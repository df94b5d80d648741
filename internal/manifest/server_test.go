package manifest_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

const everySetting = `
data_dir   = "/data"
ready_file = "/run/ready.json"
listen.address = "[::1]:0"
tls  = { cert_file = "crt", key_file = "key" }
keys = { root_file = "root" }
log  = { format = "json", level = "debug" }

[limits]
event_bytes  = "2MiB"
batch_bytes  = "3MiB"
batch_events = 10
requests     = 11
workers      = 12

[events]
retain_age       = "30d"
retain_bytes     = "5GiB"
duplicate_window = "1h"

[rates]
failures = { rate = 1 }
address = { rate = 2, burst = 3 }
principal.rate = 4

[storage]
min_free = "1GiB"

[cells]
second_wall = "required"
memory = "96MiB"
`

func TestParseServer(t *testing.T) {
	t.Parallel()
	with := func(change func(*manifest.Server)) *manifest.Server {
		s := manifest.DefaultServer()
		change(s)
		return s
	}
	for _, tt := range []struct {
		name, text string
		want       *manifest.Server
	}{
		{"nothing", "", manifest.DefaultServer()},
		{"every setting", everySetting, &manifest.Server{
			Listen: "[::1]:0", DataDir: "/data", ReadyFile: "/run/ready.json",
			TLS: manifest.TLS{CertFile: "crt", KeyFile: "key"}, Keys: manifest.Keys{RootFile: "root"},
			Log:     manifest.Log{Format: "json", Level: "debug"},
			Limits:  manifest.ServerLimits{EventBytes: 2 << 20, BatchBytes: 3 << 20, BatchEvents: 10, Requests: 11, Workers: 12},
			Events:  manifest.Events{RetainAge: 720 * time.Hour, RetainBytes: 5 << 30, DuplicateWindow: time.Hour},
			Storage: manifest.Storage{MinFree: 1 << 30},
			Rates:   manifest.Rates{Failures: manifest.Rate{PerSecond: 1, Burst: 1}, Address: manifest.Rate{PerSecond: 2, Burst: 3}, Principal: manifest.Rate{PerSecond: 4, Burst: 4}},
			Cells:   manifest.Cells{SecondWall: manifest.WallRequired, Memory: 96 << 20},
		}},
		{"large events alone", `limits.event_bytes = "5MiB"`, with(func(s *manifest.Server) {
			s.Limits.EventBytes, s.Limits.BatchBytes = 5<<20, 5<<20
		})},
		{"all addresses", `listen.address = ":8600"`, with(func(s *manifest.Server) { s.Listen = ":8600" })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := manifest.ParseServer("server.toml", []byte(tt.text))
			if err != nil {
				t.Fatal(show(t, err))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseServer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultServerIsFresh(t *testing.T) {
	t.Parallel()
	manifest.DefaultServer().Limits.Workers = 7
	if got := manifest.DefaultServer().Limits.Workers; got != 0 {
		t.Errorf("DefaultServer remembers a caller's change: %d workers", got)
	}
}

// packaging/server.toml documents every setting, with its true default, and can be used as it is.
func TestReferenceServerFile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../packaging/server.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := manifest.DefaultServer()
	want.DataDir = "/var/lib/sallyport"
	got, err := manifest.ParseServer("server.toml", text)
	if err != nil {
		t.Fatal(show(t, err))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("as it is (-want +got):\n%s", diff)
	}

	setting := regexp.MustCompile(`(?m)^# (\[\[[a-z_.]+\]\]|[a-z_]+ *= .*)$`)
	all := setting.ReplaceAllString(string(text), "$1")
	if got, err = manifest.ParseServer("server.toml", []byte(all)); err != nil {
		t.Fatal(show(t, err))
	}
	// These have no default that could be written down.
	want.ReadyFile = "/run/sallyport/ready.json"
	want.TLS = manifest.TLS{CertFile: "/etc/sallyport/tls/server.crt", KeyFile: "/etc/sallyport/tls/server.key"}
	want.Keys.RootFile = "/etc/sallyport/root.key"
	want.Identity.Issuer = "https://events.example.com"
	want.Limits.Workers = 8
	want.Cells.WorkerMemory = 4 << 30
	want.Events.RetainAge, want.Events.RetainBytes = 720*time.Hour, 50<<30
	want.Rates.Address, want.Rates.Principal = manifest.Rate{PerSecond: 20000, Burst: 40000}, manifest.Rate{PerSecond: 10000, Burst: 20000}
	want.ClientCAs = []manifest.ClientCA{{
		Name: "shop", File: "/etc/sallyport/tls/shop-ca.crt", CRLFile: "/etc/sallyport/tls/shop.crl",
		Map: []manifest.NameMapping{
			{SPIFFE: "spiffe://example.org/shop/*", Mapping: manifest.Mapping{Role: "publisher", Namespace: "shop", EventTypes: []ident.EventType{"order.created"}}},
			{Subject: "CN=metrics,O=Example", Mapping: manifest.Mapping{Role: "reader"}},
		},
	}}
	want.SecretStores = []manifest.SecretStore{{
		Kind: "vault", Namespace: "shop", URL: "https://vault.example.com:8200", Prefix: "kv/shop/", TokenFile: "/etc/sallyport/vault-token",
		VaultNamespace: "team", CAFile: "/etc/sallyport/vault-ca.crt", TTL: 5 * time.Minute,
	}, {
		Kind: "keyvault", Namespace: "shop", URL: "https://shop.vault.azure.net", Prefix: "shop-",
		TokenURL: "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/oauth2/v2.0/token",
		ClientID: "00000000-0000-0000-0000-000000000000", ClientSecretFile: "/etc/sallyport/keyvault-secret", TTL: 5 * time.Minute,
	}}
	want.Issuers = []manifest.Issuer{{
		URL: "https://login.example.com/realms/main", Audiences: []string{"sallyport"},
		Algorithms: []string{"EdDSA", "ES256", "PS256", "RS256"}, Types: []string{"JWT", "at+jwt"},
		CAFile: "/etc/sallyport/login-ca.crt", Principal: "user", Skew: 30 * time.Second,
		GroupsClaim: "groups", RolesClaim: "roles", TenantClaim: "tenant",
		Map: []manifest.ClaimMapping{{Claim: "groups", Value: "shop-team", Mapping: manifest.Mapping{
			Role: "developer", Namespace: "shop", EventTypes: []ident.EventType{"order.created"},
		}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("with every setting (-want +got):\n%s", diff)
	}

	for _, table := range []string{"", "listen", "tls", "keys", "log", "limits", "rates", "events", "storage", "cells", "[issuers]", "[secret_stores]", "[issuers.map]", "[tls.client_ca]"} {
		for _, key := range known(t, "server", table) {
			line := regexp.MustCompile(`(?m)^(# )?` + key + ` *= |^(# )?\[+([a-z_]+\.)*` + key + `\]+$`)
			if !line.Match(text) {
				t.Errorf("packaging/server.toml does not have %s in [%s]", key, table)
			}
		}
	}
}

// known returns the keys that a table may have, from what is said of one that it may not.
func known(t *testing.T, file, table string) []string {
	t.Helper()
	text, parse := "no-such-key-at-all = 1\n", parseServer
	if table != "" {
		text = "[" + table + "]\n" + text
		if inner, ok := strings.CutPrefix(table, "[issuers."); ok {
			text = "[[issuers]]\n[[issuers." + inner + "]\n" + "no-such-key-at-all = 1\n"
		}
	}
	if file == "app" {
		parse = parseApp
	}
	for _, f := range problem.From(parse([]byte(text))).Faults {
		if _, keys, ok := strings.Cut(f.Detail, "known here: "); ok && f.Column == 1 {
			return strings.Split(keys, ", ")
		}
	}
	t.Fatalf("[%s] of %s takes any key", table, file)
	return nil
}
