package policy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"sallyport/internal/problem"
)

// Cedar's library says what is wrong in a text only: it has no error types and no places below the
// policy. Here, and nowhere else, such texts are read, to find the place and say it in our words. A text
// that is not known here is shown as it is, at the beginning of the policy; golden tests have each.
var (
	parseError     = regexp.MustCompile(`^parse error at <input>:(\d+):(\d+) "(?:[^"\\]|\\.)*": (.*)$`)
	scanError      = regexp.MustCompile(`^<input>:(\d+):(\d+): (.*)$`)
	gotWant        = regexp.MustCompile(`^(?:exact )?got (.*) want (.+)$`)
	unexpected     = regexp.MustCompile(`^unexpected effect: (.*)$`)
	quotedName     = regexp.MustCompile("^`([^`]*)` is ")
	noAction       = regexp.MustCompile("^unrecognized action `Action::\"(.*)\"`$")
	noEntityType   = regexp.MustCompile("^unrecognized entity type `([^`]*)`$")
	noAttribute    = regexp.MustCompile("^attribute `([^`]*)` on entity types? (.*) not found$")
	noContext      = regexp.MustCompile("^attribute `([^`]*)` in context for Action::\"(.*)\" not found$")
	optional       = regexp.MustCompile("^unable to guarantee safety of access to optional attribute `([^`]*)`( in context)?")
	optionalTag    = regexp.MustCompile("^unable to guarantee safety of access to tag `([^`]*)`")
	wrongType      = regexp.MustCompile(`^unexpected type: expected (.*) but saw (.*)$`)
	badLiteral     = regexp.MustCompile("^error during extension function argument validation: (failed to parse as .*): `\"(.*)\"`$")
	notApplicable  = "unable to find an applicable action given the policy scope constraints"
	emptySet       = "empty set literals are forbidden in policies"
	cedarVariables = []string{"principal", "action", "resource", "context"}
)

// syntax notes why Cedar's parser refused a statement.
func (r *reader) syntax(s *statement, err error) {
	if number, ok := errors.AsType[*strconv.NumError](err); ok {
		r.at(s, max(0, s.find(strings.TrimPrefix(number.Num, "-"))), "the number is out of range; want one of 64 bits")
		return
	}
	if m := scanError.FindStringSubmatch(err.Error()); m != nil {
		r.at(s, s.tokenAt(atoi(m[1]), atoi(m[2])), "%s", m[3])
		return
	}
	m := parseError.FindStringSubmatch(err.Error())
	if m == nil {
		r.at(s, 0, "the policy cannot be read: %v", err)
		return
	}
	// The parser names the token after the one it could not take, mostly.
	i, what := s.tokenAt(atoi(m[1]), atoi(m[2])), m[3]
	got := func(text string) int {
		for j := i; j >= max(0, i-2); j-- {
			if s.word(j) == text {
				return j
			}
		}
		return i
	}
	switch {
	case gotWant.MatchString(what):
		g := gotWant.FindStringSubmatch(what)
		j := got(g[1])
		if g[1] == "" || j >= len(s.tokens) {
			r.at(s, len(s.tokens)-1, "the policy ends too early; want %s after this", quoteSign(g[2]))
			return
		}
		r.at(s, j, "want %s, not %s%s", quoteSign(g[2]), quoteSign(s.word(j)), meantSign(s.word(j), g[2]))
	case unexpected.MatchString(what):
		word := unexpected.FindStringSubmatch(what)[1]
		r.at(s, got(word), "want permit or forbid, not %s%s", quoteSign(word), meant(word, slices.Values([]string{"permit", "forbid"})))
	case quotedName.MatchString(what):
		name := quotedName.FindStringSubmatch(what)[1]
		j := i
		for ; j > 0 && s.word(j) != name; j-- {
		}
		r.at(s, j, "%s%s", strings.ReplaceAll(what, "`", `"`), meant(name, slices.Values(functions)))
	default:
		j := max(0, i-1)
		if i >= len(s.tokens) {
			j = len(s.tokens) - 1
		}
		if what == "invalid primary" {
			what = "want a value here" + meant(s.word(j), slices.Values(cedarVariables))
		}
		r.at(s, j, "%s", what)
	}
}

// meantSign suggests what should stand where the parser wanted something else.
func meantSign(got, want string) string {
	if got == "=" {
		return `; did you mean "=="?`
	}
	return meant(got, slices.Values([]string{want}))
}

// functions are those of Cedar and the methods of its values.
var functions = []string{
	"contains", "containsAll", "containsAny", "isEmpty", "hasTag", "getTag", "ip", "decimal", "datetime", "duration", "isIpv4", "isIpv6",
	"isLoopback", "isMulticast", "isInRange", "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual", "offset",
	"durationSince", "toDate", "toTime", "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays",
}

func quoteSign(s string) string {
	if s == "" {
		return "the end"
	}
	return strconv.Quote(s)
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// tokenAt returns the token at a line and column of the statement's own text, or the number of tokens.
func (s *statement) tokenAt(line, column int) int {
	text := s.text()
	at := 0
	for range line - 1 {
		n := slices.Index(text[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
	}
	runes := 0
	for i := range string(text[at:]) {
		if runes++; runes >= column {
			at += i
			break
		}
	}
	at += s.tokens[0].offset
	for i, t := range s.tokens {
		if t.end > at {
			return i
		}
	}
	return len(s.tokens)
}

// meant is the end of a sentence that suggests a word.
func meant(word string, candidates func(yield func(string) bool)) string {
	if near := problem.Nearest(word, candidates); near != "" && near != word {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// validate notes what the schema has against a policy.
func (r *reader) validate(s *statement, p *cedar.Policy) {
	tree := (*xast.Policy)(p.AST())
	seen := map[string]bool{}
	once := func(i int, format string, args ...any) {
		key := strconv.Itoa(i) + " " + fmt.Sprintf(format, args...)
		if !seen[key] {
			seen[key] = true
			r.at(s, i, format, args...)
		}
	}
	r.unknownHas(s, tree, once)
	validator := r.schema.validator
	if actions := scopeOf(tree).actions; len(actions) == 1 && r.schema.ofAction[actions[0]] != nil {
		validator = r.schema.ofAction[actions[0]]
	}
	err := validator.Policy("", tree)
	if err == nil {
		return
	}
	unknown := false
	var lacking []lack
	for _, e := range flatten(err) {
		what := e.Error()
		switch {
		case noAction.MatchString(what):
			name := noAction.FindStringSubmatch(what)[1]
			unknown = true
			once(s.find(strconv.Quote(name)), "there is no action %q%s", name, meant(name, slices.Values(actionNames())))
		case noEntityType.MatchString(what):
			name := noEntityType.FindStringSubmatch(what)[1]
			unknown = true
			once(s.findType(name), "there is no entity type %q%s", name, meant(name, slices.Values(r.schema.types)))
		case noAttribute.MatchString(what), noContext.MatchString(what):
			lacking = append(lacking, lackOf(what))
		case what == notApplicable:
			if !unknown {
				i, detail := r.schema.misapplied(s, tree)
				once(i, "%s", detail)
			}
		default:
			i, detail := r.explain(s, what)
			once(i, "%s", detail)
		}
	}
	r.lacking(s, lacking, once)
}

// explain returns the place and the words of a text of the validator that needs no knowledge of the schema.
func (r *reader) explain(s *statement, what string) (at int, detail string) {
	switch {
	case optionalTag.MatchString(what):
		name := optionalTag.FindStringSubmatch(what)[1]
		return max(0, s.find("getTag")), fmt.Sprintf("the tag %s may not be there; ask with hasTag first", name)
	case optional.MatchString(what):
		m := optional.FindStringSubmatch(what)
		last := m[1][strings.LastIndexByte(m[1], '.')+1:]
		i := s.findAccess(last)
		owner := "the principal or resource"
		if m[2] != "" {
			owner = "the context"
		}
		return i, fmt.Sprintf("%q is optional, and %s may not have it; ask with `has %s &&` first", m[1], owner, last)
	case wrongType.MatchString(what):
		m := wrongType.FindStringSubmatch(what)
		return s.condition(), fmt.Sprintf("a value in this condition has the wrong type: want %s, not %s", typeWords.Replace(m[1]), typeWords.Replace(m[2]))
	case badLiteral.MatchString(what):
		m := badLiteral.FindStringSubmatch(what)
		return max(0, s.find(`"`+m[2]+`"`)), m[1]
	case what == emptySet:
		i := s.find("[")
		return max(0, i), "an empty list; put something in it, or leave the condition out"
	}
	return s.condition(), what
}

// typeWords replaces the validator's own names of types.
var typeWords = strings.NewReplacer("__cedar::internal::AnyEntity", "an entity", "__cedar::internal::OpenRecord{}", "a record")

// condition returns the first when or unless, or the beginning.
func (s *statement) condition() int {
	for i := range s.tokens {
		if w := s.word(i); (w == "when" || w == "unless") && s.word(i+1) == "{" {
			return i
		}
	}
	return 0
}

// findType returns the token of an entity type: a word that "::" follows, or that "is" comes before.
func (s *statement) findType(name string) int {
	first, _, _ := strings.Cut(name, "::")
	for i := range s.tokens {
		if s.word(i) == first && (s.word(i+1) == "::" || s.word(i-1) == "is") {
			return i
		}
	}
	return 0
}

// findAccess returns the token of an attribute: a word after "." or "has", or a text in brackets.
func (s *statement) findAccess(name string) int {
	for i := range s.tokens {
		before := s.word(i - 1)
		if s.word(i) == name && (before == "." || before == "has") || (before == "[" || before == "has") && s.unquoted(i) == name {
			return i
		}
	}
	return 0
}

// lack is an attribute that some type has not.
type lack struct {
	attribute string
	of        string // a type, or "the context of publish"
	action    string
}

func lackOf(what string) lack {
	if m := noContext.FindStringSubmatch(what); m != nil {
		return lack{attribute: m[1], of: "the context of " + m[2], action: m[2]}
	}
	m := noAttribute.FindStringSubmatch(what)
	return lack{attribute: m[1], of: strings.ReplaceAll(m[2], "`", "")}
}

// lacking notes each attribute once, with all the types that lack it.
func (r *reader) lacking(s *statement, list []lack, once func(int, string, ...any)) {
	owners := map[string][]string{}
	var order []string
	candidates := map[string][]string{}
	for _, l := range list {
		if owners[l.attribute] == nil {
			order = append(order, l.attribute)
		}
		owners[l.attribute] = append(owners[l.attribute], l.of)
		candidates[l.attribute] = append(candidates[l.attribute], r.schema.attributes(l)...)
	}
	for _, attribute := range order {
		of := owners[attribute]
		slices.Sort(of)
		of = slices.Compact(of)
		last := attribute[strings.LastIndexByte(attribute, '.')+1:]
		names := candidates[attribute]
		slices.Sort(names)
		hint := meant(last, slices.Values(names))
		if hint == "" && len(of) < len(r.schema.principals) {
			hint = "; narrow the policy with `is`, or ask with `has` first"
		}
		verb := "has"
		if len(of) > 1 {
			verb = "have"
		}
		once(s.findAccess(last), "%s %s no attribute %q%s", joinWords(of), verb, last, hint)
	}
}

func joinWords(list []string) string {
	const most = 4
	if len(list) > most {
		return strings.Join(list[:most], ", ") + fmt.Sprintf(" and %d more", len(list)-most)
	}
	if n := len(list); n > 1 {
		return strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
	return strings.Join(list, "")
}

// unknownHas notes attributes that a policy asks for with has, and that nothing in its scope can have:
// such a condition is never true, which is no error in Cedar and always a mistake.
func (r *reader) unknownHas(s *statement, tree *xast.Policy, once func(int, string, ...any)) {
	for i := range s.tokens {
		if s.word(i) != "has" || s.tokens[i].kind != tokenWord {
			continue
		}
		owner, name := s.word(i-1), s.word(i+1)
		if s.tokens[min(i+1, len(s.tokens)-1)].kind == tokenText {
			name = s.unquoted(i + 1)
		}
		if s.word(i-2) == "." {
			continue
		}
		known := r.schema.possible(owner, tree)
		if known == nil || slices.Contains(known, name) {
			continue
		}
		once(i+1, "no %s in the scope of this policy has an attribute %q%s", owner, name, meant(name, slices.Values(known)))
	}
}

// vocabulary is the schema, as messages need it.
type vocabulary struct {
	resolved  *resolved.Schema
	validator *validate.Validator
	// ofAction validates policies of one action. The validator makes every kind of request that its schema knows for
	// each policy; with one action there are few.
	ofAction   map[Action]*validate.Validator
	types      []string
	principals []string
}

// attributes are those that whoever lacks one could have been meant to have.
func (v *vocabulary) attributes(l lack) []string {
	var record resolved.RecordType
	if l.action != "" {
		if a := v.resolved.Actions[actionUID(Action(l.action))]; a.AppliesTo != nil {
			record = a.AppliesTo.Context
		}
		// The names of the records in the context are as good a guess: messages do not say which was read.
		return append(recordNames(record), recordNames(nested(record))...)
	}
	record = v.resolved.Entities[types.EntityType(l.of)].Shape
	if strings.Contains(l.attribute, ".") {
		return recordNames(nested(record))
	}
	return recordNames(record)
}

// nested is all attributes of the records in a record.
func nested(record resolved.RecordType) resolved.RecordType {
	all := resolved.RecordType{}
	for _, a := range record {
		if inner, ok := a.Type.(resolved.RecordType); ok {
			maps.Copy(all, inner)
		}
	}
	return all
}

func recordNames(record resolved.RecordType) []string {
	var names []string
	for name := range record {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// possible returns the attributes that a variable can have in the scope of a policy; nil when it is none.
func (v *vocabulary) possible(variable string, tree *xast.Policy) []string {
	if !slices.Contains(cedarVariables, variable) || variable == "action" {
		return nil
	}
	var names []string
	sc := scopeOf(tree)
	for uid, a := range v.resolved.Actions {
		if sc.actions != nil && !slices.Contains(sc.actions, Action(uid.ID)) || a.AppliesTo == nil {
			continue
		}
		switch variable {
		case "context":
			names = append(names, recordNames(a.AppliesTo.Context)...)
		case "principal":
			for _, t := range a.AppliesTo.Principals {
				if sc.principal.typ == "" || sc.principal.typ == t {
					names = append(names, recordNames(v.resolved.Entities[t].Shape)...)
				}
			}
		case "resource":
			for _, t := range a.AppliesTo.Resources {
				if sc.resource.typ == "" || sc.resource.typ == t {
					names = append(names, recordNames(v.resolved.Entities[t].Shape)...)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// misapplied says why no action of a policy's scope goes with its principal and resource.
func (v *vocabulary) misapplied(s *statement, tree *xast.Policy) (at int, detail string) {
	sc := scopeOf(tree)
	var principals, resources []string
	names := sc.actions
	if names == nil {
		names = Actions()
	}
	for _, a := range names {
		def := v.resolved.Actions[actionUID(a)]
		if def.AppliesTo == nil {
			continue
		}
		for _, t := range def.AppliesTo.Principals {
			principals = append(principals, string(t))
		}
		for _, t := range def.AppliesTo.Resources {
			resources = append(resources, string(t))
		}
	}
	what := "the actions in the scope"
	if len(sc.actions) == 1 {
		what = string(sc.actions[0])
	}
	clean := func(list []string) []string { slices.Sort(list); return slices.Compact(list) }
	if t := string(sc.principal.typ); t != "" && t != "Group" && !slices.Contains(principals, t) {
		return s.findType(t), fmt.Sprintf("%s cannot be done by a %s; want %s", what, t, joinOr(clean(principals)))
	}
	if t := string(sc.resource.typ); t != "" && !slices.Contains(resources, t) {
		return s.findType(t), fmt.Sprintf("%s cannot be done to a %s; want %s", what, t, joinOr(clean(resources)))
	}
	return max(0, s.find("resource")), "no action in the scope goes with this principal and this resource together"
}

func joinOr(list []string) string { return strings.Join(list, " or ") }

func actionNames() []string {
	var names []string
	for _, a := range Actions() {
		names = append(names, string(a))
	}
	return names
}

// flatten returns the errors that an error joins.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}
