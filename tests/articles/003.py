import openai

openai.api_key = "your_api_key"

def chatgpt(prompt):
    response = openai.Completion.create(
        engine="text-davinci-002",
        prompt=prompt,
        max_tokens=150,
        n=1,
        stop=None,
        temperature=0.7,
    )
    return response.choices[0].text.strip()

prompt = "请问你知道Python编程语言的历史？"
response = chatgpt(prompt)
print(response)
