package cli

// completionCommand prints a script; the script asks "perigee __complete WORDS…", which needs no gateway.
func completionCommand() *command {
	return &command{
		name: "completion", usage: "bash|zsh|fish", brief: "a script that completes commands and flags in a shell", min: 1, max: 1, local: true, plain: true,
		examples: []string{"source <(perigee completion bash)", "perigee completion fish > ~/.config/fish/completions/perigee.fish"},
		run: func(c *call) error {
			script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[c.args[0]]
			if !ok {
				return usagef("there is no completion for %q, only for bash, zsh and fish", c.args[0])
			}
			c.out.line("%s", script)
			return nil
		},
	}
}

const bashCompletion = `_perigee() {
  local IFS=$'\n'
  COMPREPLY=($(compgen -W "$(perigee __complete "${COMP_WORDS[@]:1:COMP_CWORD}")" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _perigee perigee`

const zshCompletion = `_perigee() { compadd -- ${(f)"$(perigee __complete "${words[@]:1:$((CURRENT-1))}")"}; _files }
compdef _perigee perigee`

const fishCompletion = `complete -c perigee -a '(perigee __complete (commandline -opc)[2..] (commandline -ct))'`
