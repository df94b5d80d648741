package iam

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/ast"

	"sallyport/internal/policy"
)

// key is a condition key as a policy here reads it.
type key struct {
	kind keyKind
	// absent says that a request of the action never has it.
	absent bool
	// guard, when there is one, is whether a request has it.
	guard   ast.Node
	guarded bool
	value   ast.Node
}

type keyKind uint8

const (
	keyText keyKind = iota
	keyBool
	keyIP
	keyDate
	keySeconds
	keyTag
)

// keyOf returns a condition key, for an action; IAM compares their names without case, but for a tag's own.
func keyOf(e *entry, name string) (k key, ok bool) {
	context, principal := ast.Context(), ast.Principal()
	lower := strings.ToLower(name)
	const tag = "aws:principaltag/"
	switch {
	case lower == "aws:sourceip":
		return key{kind: keyIP, guarded: true, guard: context.Has("ip"), value: context.Access("ip")}, true
	case lower == "aws:currenttime":
		return key{kind: keyDate, value: context.Access("now")}, true
	case lower == "aws:securetransport":
		return key{kind: keyBool, value: context.Access("tls")}, true
	case lower == "aws:multifactorauthpresent":
		methods := principal.Access("claims").Access("methods")
		return key{kind: keyBool, guarded: true, guard: principal.Has("claims"), value: methods.Contains(ast.String("mfa"))}, true
	case lower == "aws:multifactorauthage":
		claims := principal.Access("claims")
		return key{
			kind: keySeconds, guarded: true, guard: principal.Has("claims").And(claims.Has("time")),
			value: context.Access("now").DurationSince(claims.Access("time")),
		}, true
	case lower == "events:detail-type":
		return key{kind: keyText, absent: e.action != policy.Publish, value: ast.Resource().Access("name")}, true
	case lower == "events:source":
		return key{kind: keyText, absent: e.action != policy.Publish, value: context.Access("event").Access("source")}, true
	case strings.HasPrefix(lower, tag) && len(name) > len(tag):
		label := ast.String(name[len(tag):])
		return key{kind: keyTag, guarded: true, guard: principal.HasTag(label), value: principal.GetTag(label)}, true
	}
	return key{}, false
}

// operator is a condition operator, taken apart.
type operator struct {
	base     string
	negated  bool
	ifAbsent bool // what it is when the request lacks the key
}

// operatorOf reads an operator such as ForAnyValue:StringNotLikeIfExists.
func operatorOf(text string) operator {
	base, all := strings.CutPrefix(text, "ForAllValues:")
	base, anyValue := strings.CutPrefix(base, "ForAnyValue:")
	base, ifExists := strings.CutSuffix(base, "IfExists")
	o := operator{base: base, negated: strings.Contains(base, "Not")}
	o.ifAbsent = all || ifExists || o.negated && !anyValue
	return o
}

// conditions are those of the statement for an action; all must hold. never says that one cannot hold.
func (im *importer) conditions(e *entry) (list []ast.Node, never bool, err error) {
	for i := range im.at.conditions {
		c := &im.at.conditions[i]
		node, constant, why := im.condition(e, c)
		switch {
		case why != "" && im.at.allow:
			return nil, false, im.refuse(c.pointer, "%s; an Allow without this condition would be wider", why)
		case why != "":
			im.warn(c.pointer, "%s; the Deny is without this condition now, so it is wider", why)
		case constant == always:
		case constant == isNever:
			never = true
		default:
			list = append(list, node)
		}
	}
	return list, never, nil
}

// constant is what a condition is in every request, if it is.
type constant uint8

const (
	varies constant = iota
	always
	isNever
)

func constantOf(b bool) constant {
	if b {
		return always
	}
	return isNever
}

// condition carries one condition over. why says why that cannot be done.
func (im *importer) condition(e *entry, c *condition) (n ast.Node, k constant, why string) {
	key, ok := keyOf(e, c.key)
	if !ok {
		return n, varies, "there is no " + strconv.Quote(clip(c.key)) + " here"
	}
	for _, v := range c.values {
		if strings.Contains(v, "${") {
			return n, varies, strconv.Quote(clip(v)) + " has a variable"
		}
	}
	if c.operator == "Null" {
		return null(key, c.values)
	}
	o := operatorOf(c.operator)
	if key.absent {
		return n, constantOf(o.ifAbsent), ""
	}
	test, k, ok := im.test(key, o, c.values)
	if !ok {
		return n, varies, strconv.Quote(clip(c.operator)) + " with these values cannot be said of " + strconv.Quote(clip(c.key))
	}
	switch k {
	case always:
		test = ast.True()
	case isNever:
		test = ast.False()
	case varies:
	}
	switch {
	case !key.guarded:
		return test, k, ""
	case o.ifAbsent:
		return ast.IfThenElse(key.guard, test, ast.True()), varies, ""
	}
	return key.guard.And(test), varies, ""
}

// null is the operator that asks whether a key is there.
func null(key key, values []string) (n ast.Node, k constant, why string) {
	if len(values) != 1 || values[0] != "true" && values[0] != "false" {
		return n, varies, `Null wants one "true" or "false"`
	}
	wantAbsent := values[0] == "true"
	switch {
	case key.absent:
		return n, constantOf(wantAbsent), ""
	case !key.guarded:
		return n, constantOf(!wantAbsent), ""
	case wantAbsent:
		return ast.Not(key.guard), varies, ""
	}
	return key.guard, varies, ""
}

// test is the condition for a request that has the key: any of the values, or none of them.
func (im *importer) test(key key, o operator, values []string) (n ast.Node, k constant, ok bool) {
	var tests []ast.Node
	for _, v := range values {
		t, ok := im.one(key, o, v)
		if !ok {
			return n, varies, false
		}
		tests = append(tests, t)
	}
	if len(tests) == 0 {
		return n, constantOf(o.negated), true
	}
	n = tests[0]
	for _, t := range tests[1:] {
		n = n.Or(t)
	}
	if o.negated {
		n = ast.Not(n)
	}
	return n, varies, true
}

// one is the test of one value, before it is negated.
func (im *importer) one(key key, o operator, v string) (n ast.Node, ok bool) {
	switch key.kind {
	case keyText:
		return im.textTest(key.value, o, v)
	case keyTag:
		// Here a tag is a set of texts, in IAM it is one text.
		if o.base != "StringEquals" && o.base != "StringNotEquals" {
			return n, false
		}
		if im.at.allow != o.negated {
			return key.value.Equal(ast.Set(ast.String(v))), true
		}
		return key.value.Contains(ast.String(v)), true
	case keyBool:
		want, err := strconv.ParseBool(strings.ToLower(v))
		if o.base != "Bool" || err != nil || len(v) < 4 {
			return n, false
		}
		if want {
			return key.value, true
		}
		return ast.Not(key.value), true
	case keyIP:
		return inRange(key.value, o, v)
	case keyDate:
		at, ok := moment(v)
		if !ok || !strings.HasPrefix(o.base, "Date") {
			return n, false
		}
		return compare(key.value, strings.TrimPrefix(o.base, "Date"), ast.DatetimeExtensionCall(ast.String(at)))
	case keySeconds:
		seconds, err := strconv.ParseUint(v, 10, 32)
		if err != nil || !strings.HasPrefix(o.base, "Numeric") {
			return n, false
		}
		return compare(key.value, strings.TrimPrefix(o.base, "Numeric"), ast.DurationExtensionCall(ast.String(strconv.FormatUint(seconds, 10)+"s")))
	}
	return n, false
}

// textTest compares texts.
func (im *importer) textTest(value ast.Node, o operator, v string) (n ast.Node, ok bool) {
	switch o.base {
	case "StringEquals", "StringNotEquals":
		return value.Equal(ast.String(v)), true
	case "StringLike", "StringNotLike":
		if strings.Contains(v, "?") {
			// A * in its place matches more: right in a Deny, and in an Allow for all but what matches.
			if im.at.allow != o.negated {
				return n, false
			}
			v = strings.ReplaceAll(v, "?", "*")
		}
		return value.Like(pattern(v).cedar()), true
	}
	return n, false
}

func inRange(value ast.Node, o operator, v string) (n ast.Node, ok bool) {
	if o.base != "IpAddress" && o.base != "NotIpAddress" {
		return n, false
	}
	prefix, err := netip.ParsePrefix(v)
	if err != nil {
		addr, err := netip.ParseAddr(v)
		if err != nil {
			return n, false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() || prefix.Addr().Zone() != "" {
		return n, false
	}
	return value.IsInRange(ast.IPExtensionCall(ast.String(prefix.Masked().String()))), true
}

// moment reads a time as IAM writes it, and returns it as Cedar does.
func moment(v string) (text string, ok bool) {
	at, err := time.Parse(time.RFC3339, v)
	if seconds, bad := strconv.ParseInt(v, 10, 64); bad == nil {
		at, err = time.Unix(seconds, 0), nil
	}
	at = at.UTC()
	if err != nil || at.Year() < 1970 || at.Year() > 9999 || at.Nanosecond()%int(time.Millisecond) != 0 {
		return "", false
	}
	return at.Format("2006-01-02T15:04:05.000Z"), true
}

// compare is an operator of order. Of the two for equality, the caller negates one.
func compare(value ast.Node, operator string, with ast.Node) (n ast.Node, ok bool) {
	switch operator {
	case "Equals", "NotEquals":
		return value.Equal(with), true
	case "LessThan":
		return value.LessThan(with), true
	case "LessThanEquals":
		return value.LessThanOrEqual(with), true
	case "GreaterThan":
		return value.GreaterThan(with), true
	case "GreaterThanEquals":
		return value.GreaterThanOrEqual(with), true
	}
	return n, false
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
