import openai

response = openai.Completion.create(
  engine="text-davinci-002",
  prompt="Who was Albert Einstein?",
  max_tokens=150,
  n=1,
  stop=None,
  temperature=0.7,
)

print(response.choices[0].text.strip())
