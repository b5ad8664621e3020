package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Secret is a value that must not be printed: every format verb, log call and encoder gives [redacted].
type Secret string

const redacted = "[redacted]"

// Reveal returns the secret.
func (s Secret) Reveal() string { return string(s) }

// Format implements fmt.Formatter for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // f is a buffer

// String returns [redacted].
func (s Secret) String() string { return redacted }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, which JSON, XML and YAML encoders use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

const errInline = "must be {env: NAME} or {file: PATH}: a secret never stands in this file itself"

// secret reads {env: NAME} or {file: PATH}. Nothing that is written there is printed but the name of a variable.
func (n node) secret() (Secret, bool) {
	if !n.given() {
		return "", false
	}
	if n.yaml.Kind != yaml.MappingNode {
		n.problem("%s", errInline)
		return "", false
	}
	for i := 0; i < len(n.yaml.Content); i += 2 {
		if key := n.yaml.Content[i].Value; key != "env" && key != "file" {
			n.problem("%s", errInline)
			return "", false
		}
	}
	o, _ := n.object()
	return o.secret()
}

// secret reads the keys env and file of a mapping that may have others.
func (o *object) secret() (Secret, bool) {
	env, file := o.at("env"), o.at("file")
	at, read := env, env.fromEnv
	switch {
	case env.given() && file.given():
		o.problem("has both env and file: remove one")
		return "", false
	case file.given():
		at, read = file, file.fromFile
	case !env.given():
		o.problem("has neither env: NAME nor file: PATH: a secret never stands in this file itself")
		return "", false
	}
	s, ok := read()
	if _, err := line(s.Reveal()); err != nil {
		at.problem("the secret has a line break or another control character in it")
		return "", false
	}
	return s, ok
}

var (
	envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// envCustom is what names of variables look like by custom. Anything else may be the secret itself and is not printed.
	envCustom = upTo(64, `^[A-Z][A-Z0-9_]*$`)
)

func (n node) fromEnv() (Secret, bool) {
	name, ok := n.text()
	if !ok {
		return "", false
	}
	if !envPattern.MatchString(name) {
		n.problem("must be the name of an environment variable")
		return "", false
	}
	shown := "this environment variable"
	if envCustom.MatchString(name) {
		shown = "environment variable " + name
	}
	value, ok := n.env(name)
	switch {
	case !ok:
		n.problem("%s is not set", shown)
	case value == "":
		n.problem("%s is empty", shown)
	}
	return Secret(value), value != ""
}

const maxSecretFile = 64 << 10

// fromFile reads a file of at most 64 KiB and removes the line break at its end. The path is not printed.
func (n node) fromFile() (Secret, bool) {
	path, ok := n.filePath()
	if !ok {
		return "", false
	}
	text, err := readSmall(path)
	if err != nil {
		n.problem("the file cannot be read: %s", cause(err))
		return "", false
	}
	if len(text) > maxSecretFile {
		n.problem("the file is larger than a secret can be")
		return "", false
	}
	value := strings.TrimRight(string(text), "\r\n")
	if value == "" {
		n.problem("the file is empty")
	}
	return Secret(value), value != ""
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, maxSecretFile+1))
}

// filePath returns the path of a file that the configuration names, relative ones taken from the directory of the
// configuration file, and remembers it for Files.
func (n node) filePath() (string, bool) {
	path, ok := n.text()
	if !ok {
		return "", false
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(n.dir, path)
	}
	path = filepath.Clean(path)
	if !slices.Contains(n.files, path) {
		n.files = append(n.files, path)
	}
	return path, true
}

// key32 decodes an encryption key: 32 bytes in base64, standard or URL alphabet, padded or not.
func key32(s Secret) (Secret, error) {
	text := strings.TrimRight(strings.TrimSpace(s.Reveal()), "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	raw, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(raw) != 32 {
		return "", errors.New("must be 32 bytes in base64: `bifrost key new` makes one")
	}
	return Secret(raw), nil
}

var sendable = upTo(512, `^[\x21-\x7e]+$`)

// credential reads a secret that its owner sends in an HTTP header.
func (n node) credential() (Secret, bool) {
	s, ok := n.secret()
	if ok && !sendable.MatchString(s.Reveal()) {
		n.problem("must be at most 512 characters of printable ASCII without spaces: it is sent in an HTTP header")
		return "", false
	}
	return s, ok
}
