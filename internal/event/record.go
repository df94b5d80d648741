package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sallyport/internal/ident"
)

// recordVersion begins every stored record.
const recordVersion = 1

// Bounds of a stored record: above what any Limits let in, below what could exhaust a reader.
const (
	maxRecordBytes      = 16 << 20
	maxRecordExtensions = 1 << 16
)

// Flags of a stored record: which of the seldom present fields it has.
const (
	flagTime = 1 << iota
	flagSchema
	flagTarget
	flagOnly
	flagCause
	flagExtensions
	flagBehind
	flagsEnd
)

// recordTexts is the most texts a record has besides its extensions.
const recordTexts = 13

var errRecord = errors.New("stored event is malformed")

// AppendRecord appends the stored form of r to dst. It allocates only when dst has to grow. AcceptedAt
// MUST be a time between the years 1678 and 2261, or zero; Position is not stored.
//
// The form: version, flags, data kind; the numbers; the length of every text; the texts; to the end,
// the data. So a reader makes one string for all texts, and finds the data without copying it.
func AppendRecord(dst []byte, r *Record) []byte {
	flags := r.flags()
	dst = append(dst, recordVersion, flags, byte(r.DataKind))
	accepted := int64(0)
	if !r.AcceptedAt.IsZero() {
		accepted = r.AcceptedAt.UnixNano()
	}
	dst = binary.AppendVarint(dst, accepted)
	if flags&flagTime != 0 {
		dst = binary.AppendVarint(dst, r.Time.Unix())
		dst = binary.AppendUvarint(dst, uint64(r.Time.Nanosecond()))
	}
	if flags&flagCause != 0 {
		dst = binary.AppendUvarint(dst, uint64(r.Cause))
		dst = append(dst, r.Hops)
	}
	var room [recordTexts]string
	texts := r.texts(room[:0], flags)
	for _, s := range texts {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
	}
	if flags&flagExtensions != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(r.Extensions)))
		for i := range r.Extensions {
			a := &r.Extensions[i]
			dst = append(dst, byte(a.Kind))
			dst = binary.AppendUvarint(dst, uint64(len(a.Name)))
			dst = binary.AppendUvarint(dst, uint64(len(a.Value)))
		}
	}
	for _, s := range texts {
		dst = append(dst, s...)
	}
	for i := range r.Extensions {
		dst = append(dst, r.Extensions[i].Name...)
		dst = append(dst, r.Extensions[i].Value...)
	}
	return append(dst, r.Data...)
}

func (r *Record) flags() (flags byte) {
	set := func(present bool, flag byte) {
		if present {
			flags |= flag
		}
	}
	set(!r.Time.IsZero(), flagTime)
	set(r.DataSchema != "", flagSchema)
	set(r.Target != "", flagTarget)
	set(r.OnlySubscription != "", flagOnly)
	set(r.Cause != 0 || r.CauseID != "" || r.Hops != 0, flagCause)
	set(len(r.Extensions) > 0, flagExtensions)
	set(r.Behind != (Behind{}), flagBehind)
	return flags
}

// texts appends the texts that a record with flags stores, in their order.
func (r *Record) texts(to []string, flags byte) []string {
	to = append(to, r.ID, r.Source, string(r.Type), r.Subject, r.DataContentType, string(r.Principal))
	if flags&flagSchema != 0 {
		to = append(to, r.DataSchema)
	}
	if flags&flagTarget != 0 {
		to = append(to, string(r.Target))
	}
	if flags&flagOnly != 0 {
		to = append(to, string(r.OnlySubscription))
	}
	if flags&flagCause != 0 {
		to = append(to, r.CauseID)
	}
	if flags&flagBehind != 0 {
		to = append(to, string(r.Behind.Principal), r.Behind.Authority, r.Behind.Functions)
	}
	return to
}

// ParseRecord parses the stored form. The record's Data aliases b; its texts are copied.
func ParseRecord(b []byte) (Record, error) {
	if len(b) < 3 || len(b) > maxRecordBytes || b[0] != recordVersion {
		return Record{}, fmt.Errorf("%w: not a record of version %d", errRecord, recordVersion)
	}
	flags, kind := b[1], DataKind(b[2])
	if flags >= flagsEnd || kind > DataBinary {
		return Record{}, fmt.Errorf("%w: flags %#x, data kind %d", errRecord, flags, kind)
	}
	r := Record{Event: Event{DataKind: kind}}
	p := reader{b: b[3:]}
	p.numbers(&r, flags)
	var room [recordTexts]int
	lengths := room[:len(r.texts(make([]string, 0, recordTexts), flags))]
	for i := range lengths {
		lengths[i] = p.length()
	}
	attributes := p // they are read twice: what they add up to, then what they are
	count := 0
	if flags&flagExtensions != 0 {
		count = p.extensions()
	}
	if p.bad || p.total > len(p.b) {
		return Record{}, fmt.Errorf("%w: its fields do not fit its length", errRecord)
	}
	t := texts(p.b[:p.total])
	t.fill(&r, flags, lengths)
	if count > 0 {
		r.Extensions = make([]Attribute, count)
		attributes.fill(r.Extensions, &t)
	}
	if data := p.b[p.total:]; len(data) > 0 {
		r.Data = data[:len(data):len(data)]
	}
	return r, nil
}

// texts are the texts of a record that are not yet taken, as one string.
type texts string

func (t *texts) take(n int) string {
	s := (*t)[:n]
	*t = (*t)[n:]
	return string(s)
}

// fill sets the texts of r, in the order of Record.texts.
func (t *texts) fill(r *Record, flags byte, lengths []int) {
	next := func() string {
		n := lengths[0]
		lengths = lengths[1:]
		return t.take(n)
	}
	r.ID, r.Source, r.Type = next(), next(), ident.EventType(next())
	r.Subject, r.DataContentType, r.Principal = next(), next(), ident.PrincipalID(next())
	if flags&flagSchema != 0 {
		r.DataSchema = next()
	}
	if flags&flagTarget != 0 {
		r.Target = ident.FunctionName(next())
	}
	if flags&flagOnly != 0 {
		r.OnlySubscription = ident.SubscriptionName(next())
	}
	if flags&flagCause != 0 {
		r.CauseID = next()
	}
	if flags&flagBehind != 0 {
		r.Behind.Principal, r.Behind.Authority, r.Behind.Functions = ident.PrincipalID(next()), next(), next()
	}
}

// reader takes numbers off the front of b; after one that does not fit, bad is set and all further
// ones are 0. total is the sum of the lengths it has read.
type reader struct {
	b     []byte
	total int
	bad   bool
}

// numbers reads what comes before the lengths.
func (p *reader) numbers(r *Record, flags byte) {
	if accepted := p.varint(); accepted != 0 {
		r.AcceptedAt = time.Unix(0, accepted).UTC()
	}
	if flags&flagTime != 0 {
		sec, nano := p.varint(), p.uvarint()
		if nano >= uint64(time.Second) {
			p.fail()
		} else {
			r.Time = time.Unix(sec, int64(nano)).UTC()
		}
	}
	if flags&flagCause != 0 {
		r.Cause, r.Hops = ident.Position(p.uvarint()), p.byte()
	}
}

// length reads the length of a text.
func (p *reader) length() int {
	n := p.uvarint()
	if n > uint64(len(p.b)) {
		p.fail()
		return 0
	}
	p.total += int(n) // each is below maxRecordBytes, and there are few
	return int(n)
}

// extensions reads the lengths of the extension attributes and returns how many there are.
func (p *reader) extensions() int {
	n := p.uvarint()
	if n > maxRecordExtensions {
		p.fail()
		return 0
	}
	for range n {
		if AttrKind(p.byte()) > AttrInteger {
			p.fail()
		}
		p.length()
		p.length()
	}
	return int(n)
}

// fill sets attributes, whose lengths p has before it, from t.
func (p *reader) fill(attributes []Attribute, t *texts) {
	p.uvarint()
	for i := range attributes {
		a := &attributes[i]
		a.Kind = AttrKind(p.byte())
		a.Name = t.take(p.length())
		a.Value = t.take(p.length())
	}
}

func (p *reader) fail() { p.bad, p.b = true, nil }

func (p *reader) varint() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.fail()
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *reader) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.fail()
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *reader) byte() byte {
	if len(p.b) == 0 {
		p.fail()
		return 0
	}
	c := p.b[0]
	p.b = p.b[1:]
	return c
}
