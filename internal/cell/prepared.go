package cell

import (
	"encoding/binary"
	"errors"

	"sallyport/internal/cell/js"
	"sallyport/internal/cell/snapshot"
)

// The form of a template in the cache, all numbers little-endian:
//
//	1 byte    flags
//	          the state of a script
//	4 bytes   number of globals
//	8 bytes   for each global
//	          the image
const flagInitialized = 1

// maxGlobals bounds the mutable globals of a template: Go programs have about ten.
const maxGlobals = 1 << 16

// errTemplate is returned for bytes that are no template.
var errTemplate = errors.New("not a template")

// append appends the encoding of t to b.
func (t *template) append(b []byte) []byte {
	var flags byte
	if t.initialized {
		flags |= flagInitialized
	}
	b = t.script.Append(append(b, flags))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.globals)))
	for _, g := range t.globals {
		b = binary.LittleEndian.AppendUint64(b, g)
	}
	return t.image.Append(b)
}

// parseTemplate parses what append made. It keeps b. It is safe with bytes from anywhere, but a
// template is as good as code: see snapshot.Parse.
func parseTemplate(b []byte, base *snapshot.Image) (*template, error) {
	const counted = 1 + js.StateBytes + 4
	if len(b) < counted || b[0]&^flagInitialized != 0 {
		return nil, errTemplate
	}
	t := &template{
		initialized: b[0]&flagInitialized != 0,
		script:      js.ParseState([js.StateBytes]byte(b[1:])),
	}
	count := binary.LittleEndian.Uint32(b[counted-4:])
	b = b[counted:]
	if count > maxGlobals || int64(len(b)) < 8*int64(count) {
		return nil, errTemplate
	}
	for range count {
		t.globals = append(t.globals, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	var err error
	t.image, err = snapshot.Parse(b, base)
	return t, err
}

// recall returns the template that the cache has under the key for a function like f, or nil.
func (f *Function) recall(key string, base *snapshot.Image) *template {
	if f.engine.cfg.Cache == nil {
		return nil
	}
	entry := f.engine.cfg.Cache.Get(key)
	if entry == nil {
		return nil
	}
	t, err := parseTemplate(entry, base)
	if err != nil || len(t.globals) != len(f.module.report.Globals) || t.image.Size() > f.limits.Memory {
		return nil
	}
	return t
}

// remember keeps a template, unless it is nil, for the next run.
func (e *Engine) remember(key string, t *template) {
	if e.cfg.Cache != nil && t != nil {
		e.cfg.Cache.Put(key, t.append(nil))
	}
}
