// Package ident holds the typed names that cross package borders. Each is parsed once, at the
// edge, by its Parse function; past that point a value of these types is known to be well formed.
//
// It is a leaf: it imports the standard library only, and does no I/O.
package ident

import (
	"errors"
	"fmt"
	"strings"
)

// MaxNameLength bounds names of namespaces, apps, functions, subscriptions and grants, in bytes:
// a DNS label, so that a name fits wherever a host name part does.
const MaxNameLength = 63

// MaxEventTypeLength bounds an event type in bytes.
const MaxEventTypeLength = 255

// Namespace is the isolation and naming unit that everything else lives in.
type Namespace string

// AppName names an app: a set of functions deployed together.
type AppName string

// FunctionName names a function within its namespace.
type FunctionName string

// SubscriptionName names a subscription within its namespace.
type SubscriptionName string

// EventType is the CloudEvents attribute "type".
type EventType string

// PrincipalID names who acts, as "kind:name": "token:7f3a…", "function:default/price", "operator:local".
type PrincipalID string

// DefaultNamespace exists on every server.
const DefaultNamespace Namespace = "default"

// ErrMalformed is wrapped by every error of this package.
var ErrMalformed = errors.New("malformed name")

// ParseNamespace parses a namespace name.
func ParseNamespace(s string) (Namespace, error) {
	return Namespace(s), checkName("namespace", s)
}

// ParseAppName parses an app name.
func ParseAppName(s string) (AppName, error) { return AppName(s), checkName("app", s) }

// ParseFunctionName parses a function name.
func ParseFunctionName(s string) (FunctionName, error) {
	return FunctionName(s), checkName("function", s)
}

// ParseSubscriptionName parses a subscription name.
func ParseSubscriptionName(s string) (SubscriptionName, error) {
	return SubscriptionName(s), checkName("subscription", s)
}

// ParseGrantName parses the name of a grant, which is unique within its function only.
func ParseGrantName(s string) (string, error) { return s, checkName("grant", s) }

// ParseEventType parses an event type: 1 to MaxEventTypeLength printable ASCII characters without
// space, and none of * (reserved for filters), quote or backslash.
func ParseEventType(s string) (EventType, error) {
	if s == "" || len(s) > MaxEventTypeLength {
		return "", fmt.Errorf("%w: event type is %d bytes long, want 1 to %d", ErrMalformed, len(s), MaxEventTypeLength)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`*"\`, c) >= 0 {
			return "", fmt.Errorf("%w: event type has the character %q at byte %d; want printable ASCII without space, *, quote or backslash", ErrMalformed, c, i)
		}
	}
	return EventType(s), nil
}

// checkName accepts a lower-case letter followed by letters, digits and single inner hyphens.
func checkName(kind, s string) error {
	if s == "" || len(s) > MaxNameLength {
		return fmt.Errorf("%w: %s name is %d bytes long, want 1 to %d", ErrMalformed, kind, len(s), MaxNameLength)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z':
		case i > 0 && '0' <= c && c <= '9':
		case i > 0 && i < len(s)-1 && c == '-':
		default:
			return fmt.Errorf("%w: %s name %q; want lower-case letters, digits and inner hyphens, beginning with a letter", ErrMalformed, kind, clip(s))
		}
	}
	return nil
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
