package cell

import "bytes"

// ReencodeTemplate parses b as a template without a base and encodes it again.
func ReencodeTemplate(b []byte) ([]byte, error) {
	t, err := parseTemplate(b, nil)
	if err != nil {
		return nil, err
	}
	return t.append(nil), nil
}

// RecodeEntry parses b as an entry of compiled code and encodes it again.
func RecodeEntry(b []byte) ([]byte, error) {
	e, err := parseEntry(b)
	if err != nil {
		return nil, err
	}
	return e.encode()
}

// TemplateHas reports whether what f's events begin with, beside what all scripts do, has part.
func TemplateHas(f *Function, part []byte) bool { return bytes.Contains(f.template.append(nil), part) }
