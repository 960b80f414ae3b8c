package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Configuration providers (KIP-297): a value may name a secret that stands elsewhere.
//
//	config.providers=file,env,dir
//	config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
//	ssl.key.password=${file:/run/secrets/broker.properties:password}    a key of a properties file
//	ssl.key.password=${dir:/run/secrets:password}                       a file of a directory (DirectoryConfigProvider)
//	ssl.key.password=${env:KEY_PASSWORD}                                a variable (EnvVarConfigProvider)
//
// Other classes are refused. Unlike Kafka, which then takes the expression itself for the value, so is what cannot be found. Without
// config.providers, expressions are ordinary text.

var expression = regexp.MustCompile(`\$\{([^}:]*):(?:([^}]*?):)?([^}]*?)\}`)

// provider looks a key up in a place.
type provider func(place, key string, environ []string) (string, error)

var providerClasses = map[string]provider{
	"FileConfigProvider": func(place, key string, _ []string) (string, error) {
		read, err := ReadFile(place)
		if err != nil {
			return "", err
		}
		v, ok := read[key]
		if !ok {
			return "", fmt.Errorf("%s has no key %s", place, key)
		}
		return v, nil
	},
	"DirectoryConfigProvider": func(place, key string, _ []string) (string, error) {
		if key != filepath.Base(key) {
			return "", fmt.Errorf("%s is not the name of a file", key)
		}
		text, err := os.ReadFile(filepath.Join(place, key))
		return string(text), err
	},
	"EnvVarConfigProvider": func(_, key string, environ []string) (string, error) {
		for _, e := range slices.Backward(environ) {
			if name, v, _ := strings.Cut(e, "="); name == key {
				return v, nil
			}
		}
		return "", fmt.Errorf("there is no variable %s", key)
	},
}

// askProviders replaces the expressions in values, in place.
func askProviders(static map[string]string, environ []string) error {
	names, _ := readTextList(static["config.providers"])
	providers := map[string]provider{}
	for _, name := range names {
		key := "config.providers." + name + ".class"
		class := static[key]
		p := providerClasses[class[strings.LastIndexByte(class, '.')+1:]]
		if p == nil {
			return unfit(key, class, "one of %s", strings.Join(slices.Sorted(maps.Keys(providerClasses)), ", "))
		}
		providers[name] = p
	}
	if len(providers) == 0 {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(static)) {
		var failed error
		static[key] = expression.ReplaceAllStringFunc(static[key], func(text string) string {
			m := expression.FindStringSubmatch(text)
			p := providers[m[1]]
			if p == nil {
				return text
			}
			v, err := p(m[2], m[3], environ)
			if err != nil && failed == nil {
				failed = fmt.Errorf("%s=%s: %w", key, text, err)
			}
			return v
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}
