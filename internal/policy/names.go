package policy

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// resourceKinds are the words for kinds of resources in texts that people write.
var resourceKinds = []struct {
	word string
	kind Kind
}{{"event_type", KindEventType}, {"function", KindFunction}, {"secret", KindSecret}, {"namespace", KindNamespace}, {"server", KindServer}, {"grant", KindGrant}}

// ParseResource parses a resource as people name it: "event_type:shop/order.created", "function:shop/price",
// "secret:shop/stripe-key", "namespace:shop" or "server".
func ParseResource(s string) (Resource, error) {
	if s == "server" {
		return OfServer(), nil
	}
	word, name, found := strings.Cut(s, ":")
	i := slices.IndexFunc(resourceKinds, func(k struct {
		word string
		kind Kind
	},
	) bool {
		return k.word == word
	})
	if !found || i < 0 || word == "server" {
		words := []string{"event_type", "function", "secret", "grant", "namespace", "server"}
		return Resource{}, fmt.Errorf(`want "event_type:NAMESPACE/TYPE", "function:NAMESPACE/NAME", "secret:NAMESPACE/NAME", "grant:NAMESPACE/FUNCTION/NAME", "namespace:NAME" or "server"%s`, meant(word, slices.Values(words)))
	}
	if word == "namespace" {
		ns, err := ident.ParseNamespace(name)
		return OfNamespace(ns), err
	}
	first, rest, found := strings.Cut(name, "/")
	ns, err := ident.ParseNamespace(first)
	if err != nil {
		return Resource{}, err
	}
	if !found {
		return Resource{}, fmt.Errorf("want the namespace and a slash before the name, %q", word+":default/"+first)
	}
	switch word {
	case "function":
		_, err = ident.ParseFunctionName(rest)
	case "secret":
		err = parseSecret(rest)
	case "grant":
		function, grant, _ := strings.Cut(rest, "/")
		if _, err = ident.ParseFunctionName(function); err == nil {
			_, err = ident.ParseGrantName(grant)
		}
	default:
		_, err = ident.ParseEventType(rest)
	}
	return Resource{Kind: resourceKinds[i].kind, Namespace: ns, Name: rest}, err
}

// parseSecret parses a secret as policies call it: of the server's own store, or with that store before it whose it is.
func parseSecret(name string) error {
	store, path, other := strings.Cut(name, ":")
	if !other {
		_, err := ident.ParseSecretName(name)
		return err
	}
	if store == ident.StoreVault {
		path += "#field" // policies are about secrets, not about their fields
	}
	_, err := ident.ParseSecretRef(store + ":" + path)
	return err
}

// String returns the resource as ParseResource reads it.
func (r Resource) String() string {
	switch r.Kind {
	case KindEventType:
		return "event_type:" + string(r.Namespace) + "/" + r.Name
	case KindFunction:
		return "function:" + string(r.Namespace) + "/" + r.Name
	case KindSecret:
		return "secret:" + string(r.Namespace) + "/" + r.Name
	case KindNamespace:
		return "namespace:" + r.Name
	case KindGrant:
		return "grant:" + string(r.Namespace) + "/" + r.Name
	case KindServer:
		return "server"
	case KindToken, KindUser, KindService:
	}
	return string(r.Kind) + ":" + r.Name
}

// ParsePrincipal parses the id of a principal: "user:ann", "service:…", "token:…" or "function:shop/price". A function
// belongs to its namespace; of all others, more than the id is known to access only.
func ParsePrincipal(s string) (Principal, error) {
	word, name, _ := strings.Cut(s, ":")
	for _, k := range []Kind{KindToken, KindUser, KindService, KindFunction} {
		if principalPrefix(k) != word+":" || name == "" {
			continue
		}
		p := Principal{Kind: k, ID: ident.PrincipalID(s)}
		if k != KindFunction {
			return p, nil
		}
		r, err := ParseResource(s)
		p.Namespace = r.Namespace
		return p, err
	}
	words := []string{"user", "service", "token", "function"}
	return Principal{}, fmt.Errorf(`want "user:ID", "service:ID", "token:ID" or "function:NAMESPACE/NAME"%s`, meant(word, slices.Values(words)))
}

// ParseAction parses the name of an action.
func ParseAction(s string) (Action, error) {
	if slices.Contains(Actions(), Action(s)) {
		return Action(s), nil
	}
	return "", problem.New(problem.Invalid, codeInvalid, "there is no action %q%s", clip(s), meant(s, slices.Values(actionNames())))
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
