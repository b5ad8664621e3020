package config_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/bifrost-proxy/bifrost/config"
)

func TestASecretDoesNotPrint(t *testing.T) {
	cfg := load(t, "testdata/full.yaml")
	var out bytes.Buffer
	for _, v := range []any{cfg, *cfg, cfg.Callers, cfg.Integrations[0].ClientSecret, cfg.Integrations[0], *cfg.Integrations[0], cfg.EncryptionKeys, cfg.Store} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
			fmt.Fprintf(&out, verb, v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("", "v", v)
		require.NoError(t, json.NewEncoder(&out).Encode(v))
		require.NoError(t, yaml.NewEncoder(&out).Encode(v))
	}
	require.False(t, strings.Contains(out.String(), "CANARY") || strings.Contains(out.String(), fmt.Sprintf("%x", "CANARY")))
	require.Contains(t, out.String(), "[redacted]")
	require.Equal(t, "[redacted]", cfg.Integrations[0].ClientSecret.String())
}

func TestASecretFileLosesItsLineBreakAlone(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("  CANARY \r\n\n"), 0o600))
	for name, path := range map[string]string{"absolute": filepath.Join(dir, "secret"), "relative": "secret"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "bifrost.yaml")
			require.NoError(t, os.WriteFile(file, []byte(minimal(t, "env: SECRET", "file: "+path)), 0o600))
			cfg := load(t, file)
			require.Equal(t, "  CANARY ", cfg.Integrations[0].ClientSecret.Reveal())
			require.Equal(t, []string{file, filepath.Join(dir, "secret")}, cfg.Files())
		})
	}
}

func TestASecretFileIsSmall(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), bytes.Repeat([]byte("CANARY"), 64<<10), 0o600))
	_, err := config.Load(write(t, "encryption_keys: [{id: a, file: "+filepath.Join(dir, "secret")+"}]\n"+minimal(t)), badEnv)
	require.Equal(t, []string{"1: encryption_keys[0].file: the file is larger than a secret can be"}, problems(t, err))
}

func TestAnEncryptionKeyComesInAnyBase64(t *testing.T) {
	raw := []byte{0xfb, 0xff, 0xfe, 31: 0x3f}
	for name, encoding := range map[string]*base64.Encoding{
		"standard": base64.StdEncoding, "unpadded": base64.RawStdEncoding, "URL": base64.URLEncoding, "unpadded URL": base64.RawURLEncoding,
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := config.Load(write(t, "encryption_keys: [{id: a, env: IT}]\n"+minimal(t)), func(string) (string, bool) {
				return encoding.EncodeToString(raw), true
			})
			require.NoError(t, err)
			require.Equal(t, string(raw), cfg.EncryptionKeys[0].Bytes.Reveal())
		})
	}
}
