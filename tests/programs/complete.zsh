# `zsh -f complete.zsh SCRIPT LINE`: as complete.bash, for zsh; each line is `word:description`.
autoload -Uz is-at-least
_describe() { print -rl -- "${(@P)2}" }
compdef() { }
BUFFER=$2 CURSOR=${#2} words=(${(z)2})
source "$1"
_python_argcomplete
