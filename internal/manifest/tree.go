package manifest

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is what a value is.
type kind uint8

const (
	kindTable kind = iota
	kindTables
	kindText
	kindInteger
	kindFloat
	kindBool
	kindTime
	kindList
)

// String returns the kind in words, as a part of a sentence.
func (k kind) String() string {
	return [...]string{"a table", "a list of tables", "a text", "an integer", "a fraction", "a truth value", "a date or time", "a list"}[k]
}

// node is a value in the text, and where it and its key stand. A library that decodes into structs
// forgets the places and stops at the first value of a wrong type; this tree lets every fault be found
// and pointed at.
type node struct {
	kind       kind
	key, value place
	text       string           // of a text, decoded; of a number, as it stands
	members    map[string]*node // of a table
	order      []string         // of members, as they stand in the text
	items      []*node          // of a list, or of a list of tables
}

// current is what a key that leads through n means: of a list of tables its last one.
func (n *node) current() *node {
	if n.kind == kindTables && len(n.items) > 0 {
		return n.items[len(n.items)-1]
	}
	return n
}

// member returns the member of a table, made if there is none.
func (n *node) member(name string, at place) *node {
	if m := n.members[name]; m != nil {
		return m
	}
	if n.members == nil {
		n.members = map[string]*node{}
	}
	m := &node{key: at, value: at}
	n.members[name] = m
	n.order = append(n.order, name)
	return m
}

// parse makes the tree. The library's decoder then sees to what the grammar alone does not say: keys and
// tables that are defined twice, numbers out of range, dates that are none.
func (d *document) parse() {
	d.root = &node{}
	b := builder{d: d}
	b.parser.Reset(d.text)
	table := d.root
	for b.err == nil && b.parser.NextExpression() {
		switch e := b.parser.Expression(); e.Kind {
		case unstable.Table:
			table = b.descend(d.root, e.Key(), 0)
		case unstable.ArrayTable:
			table = b.element(e.Key())
		case unstable.KeyValue:
			b.keyValue(table, e, 1)
		}
	}
	if b.err != nil {
		d.unread = true
		d.fault(b.at, "%v", b.err)
		return
	}
	var discarded map[string]any
	err := toml.NewDecoder(bytes.NewReader(d.text)).Decode(&discarded)
	if err == nil {
		d.hideCredentials()
		return
	}
	d.unread = true
	at := place{}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		at.offset = d.offset(bad.Position())
		at.length = wordLength(string(d.text[at.offset:]))
	}
	d.fault(at, "%s", strings.TrimPrefix(err.Error(), "toml: "))
}

// offset returns the byte at a line and column, both from 1.
func (d *document) offset(line, column int) int {
	at := 0
	for range line - 1 {
		n := bytes.IndexByte(d.text[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
	}
	at = min(at+max(column-1, 0), len(d.text))
	for at > 0 && at < len(d.text) && !utf8.RuneStart(d.text[at]) {
		at-- // the decoder counts bytes, and may stop within a character
	}
	return at
}

var (
	errDepth   = errors.New("tables and lists are too deep in each other")
	errNodes   = errors.New("the file has too many keys and values")
	errMembers = errors.New("the table has too many keys")
)

// builder makes the tree, and stops at its limits.
type builder struct {
	d      *document
	parser unstable.Parser
	nodes  int
	err    error
	at     place // of err
}

// spend counts a key or value, and reports whether it is within the limits.
func (b *builder) spend(at place, depth int) bool {
	b.nodes++
	switch {
	case b.err != nil:
	case depth > maxDepth:
		b.err, b.at = errDepth, at
	case b.nodes > maxNodes:
		b.err, b.at = errNodes, at
	}
	return b.err == nil
}

// descend follows a key from a table, and makes what is not there.
func (b *builder) descend(n *node, key unstable.Iterator, depth int) *node {
	for key.Next() {
		part := key.Node()
		at := placeOf(part.Raw)
		depth++
		if !b.spend(at, depth) {
			return n
		}
		if len(n.order) >= maxMembers && n.members[string(part.Data)] == nil {
			b.err, b.at = errMembers, at
			return n
		}
		n = n.member(string(part.Data), at).current()
	}
	return n
}

// element adds a table to a list of tables.
func (b *builder) element(key unstable.Iterator) *node {
	list := b.d.root
	parts, last := 0, place{}
	for key.Next() {
		part := key.Node()
		at := placeOf(part.Raw)
		if parts++; !b.spend(at, parts) {
			return list
		}
		last = at
		list = list.current()
		if len(list.order) >= maxMembers && list.members[string(part.Data)] == nil {
			b.err, b.at = errMembers, at
			return list
		}
		list = list.member(string(part.Data), at)
	}
	list.kind = kindTables
	item := &node{key: last, value: last}
	list.items = append(list.items, item)
	return item
}

func placeOf(r unstable.Range) place { return place{offset: int(r.Offset), length: int(r.Length)} }

// keyValue adds a key and its value to a table.
func (b *builder) keyValue(table *node, e *unstable.Node, depth int) {
	n := b.descend(table, e.Key(), depth)
	if b.err != nil {
		return
	}
	// Lists and tables have no range of their own: theirs is what follows the key and the equals sign.
	whole := placeOf(e.Raw)
	from := n.key.offset + n.key.length
	rest := b.d.text[from:max(from, whole.offset+whole.length)]
	trimmed := bytes.TrimLeft(rest, " \t=")
	n.value = place{offset: from + len(rest) - len(trimmed), length: len(bytes.TrimRight(trimmed, " \t"))}
	b.fill(n, e.Value(), depth+1)
}

// fill gives a node its value.
func (b *builder) fill(n *node, v *unstable.Node, depth int) {
	if v.Raw.Length > 0 && v.Kind != unstable.InlineTable && v.Kind != unstable.Array {
		n.value = placeOf(v.Raw)
	}
	if !b.spend(n.value, depth) {
		return
	}
	switch v.Kind {
	case unstable.InlineTable:
		n.kind = kindTable
		for it := v.Children(); it.Next() && b.err == nil; {
			b.keyValue(n, it.Node(), depth)
		}
	case unstable.Array:
		n.kind = kindList
		for it := v.Children(); it.Next() && b.err == nil; {
			item := &node{key: n.key, value: n.value}
			n.items = append(n.items, item)
			b.fill(item, it.Node(), depth+1)
		}
	case unstable.String:
		n.kind, n.text = kindText, string(v.Data)
	case unstable.Integer:
		n.kind, n.text = kindInteger, string(v.Data)
	case unstable.Float:
		n.kind, n.text = kindFloat, string(v.Data)
	case unstable.Bool:
		n.kind, n.text = kindBool, string(v.Data)
	default:
		n.kind, n.text = kindTime, string(v.Data)
	}
}
