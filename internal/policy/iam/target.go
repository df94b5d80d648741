package iam

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
)

// target is what a policy is about.
type target struct {
	kind policy.Kind
	uid  cedar.EntityUID // one resource; zero: those of the kind that the names let through
	// names are those that are in, or with except those that are not. Nil with except is all.
	names  []pattern
	except bool
}

// nothing is the target of a statement that is about no resource of an action.
var nothing *target

// pattern is a name with * for any characters.
type pattern string

// node is the test whether a name matches.
func (p pattern) node() ast.Node {
	name := ast.Resource().Access("name")
	if !strings.Contains(string(p), "*") {
		return name.Equal(ast.String(string(p)))
	}
	return name.Like(p.cedar())
}

func (p pattern) cedar() types.Pattern {
	var parts []any
	for i, literal := range strings.Split(string(p), "*") {
		if i > 0 {
			parts = append(parts, types.Wildcard{})
		}
		parts = append(parts, literal)
	}
	return types.NewPattern(parts...)
}

// apply adds the target to a policy.
func (t *target) apply(p *ast.Policy) *ast.Policy {
	if t.uid != (cedar.EntityUID{}) {
		return p.ResourceEq(t.uid)
	}
	p = p.ResourceIs(types.EntityType(t.kind))
	if len(t.names) == 0 {
		return p
	}
	test := t.names[0].node()
	for _, n := range t.names[1:] {
		test = test.Or(n.node())
	}
	if t.except {
		return p.Unless(test)
	}
	return p.When(test)
}

// target is what the statement is about for an action here; nothing when it is about none of its resources.
func (im *importer) target(e *entry) (*target, error) {
	s := im.at
	switch {
	case !s.hasResource && s.allow:
		return nil, im.refuse("", "it has no Resource")
	case e.kind == policy.KindNamespace:
		return im.wholeNamespace(e), nil
	}
	t := &target{kind: e.kind, except: s.notResource || !s.hasResource}
	for _, r := range s.resources {
		name, all, ok, err := im.name(e, r)
		switch {
		case err != nil:
			return nil, err
		case !ok:
		case all && t.except && s.hasResource:
			return nothing, nil
		case all:
			return &target{kind: e.kind, except: true}, nil
		case !slices.Contains(t.names, name):
			t.names = append(t.names, name)
		}
	}
	if len(t.names) == 0 && !t.except {
		return nothing, nil
	}
	if len(t.names) == 1 && !t.except && !strings.Contains(string(t.names[0]), "*") {
		t.uid = cedar.NewEntityUID(cedar.EntityType(e.kind), cedar.String(string(im.options.Namespace)+"/"+string(t.names[0])))
	}
	return t, nil
}

// wholeNamespace is the target of an action that is of a namespace as a whole: an Allow must be for all resources of each
// service that the action is made of, and a Deny for any.
func (im *importer) wholeNamespace(e *entry) *target {
	s := im.at
	whole := &target{kind: e.kind, uid: cedar.NewEntityUID(cedar.EntityType(e.kind), cedar.String(im.options.Namespace))}
	if s.allow {
		if s.notResource || slices.ContainsFunc(services(e.allow), func(service string) bool {
			return !slices.ContainsFunc(s.resources, func(r value) bool { return allOf(service, r.text) })
		}) {
			im.warn("", "%s is not allowed: it is of a whole namespace here, and this is about some resources only", e.action)
			return nothing
		}
		return whole
	}
	if !s.hasResource || slices.ContainsFunc(s.resources, func(r value) bool { return r.text == "*" }) && !s.notResource {
		return whole
	}
	if s.notResource || slices.ContainsFunc(s.resources, func(r value) bool {
		service, _, ok := arn(r.text)
		return !ok || strings.ContainsAny(service, "*?$") || slices.Contains(services(e.deny), service)
	}) {
		im.warn("", "%s is of a whole namespace here, so the Deny is too", e.action)
		return whole
	}
	return nothing
}

// services are those of some IAM actions.
func services(actions []string) []string {
	var list []string
	for _, a := range actions {
		service, _, _ := strings.Cut(a, ":")
		if !slices.Contains(list, service) {
			list = append(list, service)
		}
	}
	return list
}

// allOf reports whether an ARN is all resources of a service.
func allOf(service, text string) bool {
	if text == "*" {
		return true
	}
	of, rest, ok := arn(text)
	return ok && of == service && slices.Contains([]string{"*", "function:*", "rule/*", "log-group:*"}, rest)
}

// arn splits an ARN into its service and what follows the account.
func arn(text string) (service, rest string, ok bool) {
	parts := strings.SplitN(text, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return "", "", false
	}
	return parts[2], parts[5], true
}

// name is what a resource of the statement is called here. It is not ok for one that is of no concern to the action.
// all says that it is every one there is.
func (im *importer) name(e *entry, r value) (name pattern, all, ok bool, err error) {
	service, rest, isARN := arn(r.text)
	own, prefix := "lambda", "function:"
	if e.kind == policy.KindEventType {
		own, prefix = "events", "event-bus/"
	}
	switch {
	case r.text == "*":
		return "", true, true, nil
	case e.kind == policy.KindSecret:
		if isARN && service != "secretsmanager" {
			return "", false, false, nil
		}
		return im.unclear(r, "a secret has another name here than %q", r.text)
	case !isARN || strings.ContainsAny(service, "*?$"):
		return im.unclear(r, "%q is no ARN of one service", r.text)
	case service != own:
		return "", false, false, nil
	case rest == "*":
		return "", true, true, nil
	case !strings.HasPrefix(rest, prefix):
		if strings.ContainsAny(rest, "*?$") {
			return im.unclear(r, "%q does not say what kind of resource it is", r.text)
		}
		return "", false, false, nil
	case e.kind == policy.KindEventType && !im.at.allow && im.at.notResource:
		return im.unclear(r, "the event bus %q may not be the namespace, so the Deny has no exception for it", strings.TrimPrefix(rest, prefix))
	case e.kind == policy.KindEventType:
		im.warn(r.pointer, "the event bus %q is taken to be the namespace", strings.TrimPrefix(rest, prefix))
		return "", true, true, nil
	}
	return im.function(r, strings.TrimPrefix(rest, prefix))
}

// function is the name of a function in an ARN.
func (im *importer) function(r value, text string) (name pattern, all, ok bool, err error) {
	// What is named must not become more in an Allow, nor as an exception to a Deny; and not less elsewhere.
	narrow := im.at.allow != im.at.notResource
	text, qualifier, qualified := strings.Cut(text, ":")
	switch {
	case strings.Contains(text+qualifier, "${"):
		return im.unclear(r, "%q has a variable", r.text)
	case qualified && narrow:
		return im.unclear(r, "%q is about a version or alias, which is no resource here", r.text)
	case strings.Contains(text, "?") && narrow:
		return im.unclear(r, "%q has a ?, which there is not here", r.text)
	}
	text = strings.ReplaceAll(text, "?", "*")
	if strings.Trim(text, "*") == "" {
		return "", true, true, nil
	}
	plain := strings.ReplaceAll(text, "*", "")
	if !strings.Contains(text, "*") {
		_, err = ident.ParseFunctionName(text)
	} else if strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		err = ident.ErrMalformed
	}
	if err != nil {
		if narrow {
			return im.unclear(r, "no function here can be called %q", text)
		}
		// It has another name here, and nobody says which.
		return "", false, false, im.refuse(r.pointer, "no function here can be called %q", text)
	}
	return pattern(text), false, true, nil
}

// unclear is the name of a resource that cannot be carried over as it is. In an Allow it is left out, in a Deny it becomes
// every resource; as an exception, the other way round.
func (im *importer) unclear(r value, format string, args ...any) (name pattern, all, ok bool, err error) {
	im.warn(r.pointer, format, args...)
	more := im.at.allow == im.at.notResource
	return "", more, more, nil
}
